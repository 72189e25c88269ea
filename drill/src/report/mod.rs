//! The report of a drill: one page of HTML that needs nothing but itself.
//!
//! ```text
//! page    the page: verdicts as a table, then each scenario with its plot, its marks and what is wrong
//! plot    a timeline as SVG: throughput, latency, who led, and the faults
//! series  answers counted by slices of time
//! html    escaping
//! style   the look, light and dark
//! ```

mod html;
mod page;
mod plot;
mod series;
mod style;

#[cfg(test)]
mod page_test;

pub use page::{About, page};
