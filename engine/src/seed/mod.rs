//! Seeding: a whole database as a stream, pages first, then frames.
