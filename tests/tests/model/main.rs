//! Random lives of engines beside a plain map. See `docs/testing.md`.

mod life;
mod lives;
