//! Random lives of engines beside a plain map, and what goes through the door. See `docs/testing.md`.

mod counting;
mod large;
mod life;
mod lives;
mod readers;
