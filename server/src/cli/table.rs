//! Tables for people.

use calamus_proto::v1::{Position, Role};
use comfy_table::{ContentArrangement, Table, presets};

/// A table without frames, wide enough for what is in it.
pub fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

/// What a node is, in one word.
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unknown",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Outside => "outside",
    }
}

/// A log id as term.index; "-" for none.
pub fn position(position: Option<&Position>) -> String {
    position.map_or_else(|| "-".to_owned(), |at| format!("{}.{}", at.term, at.index))
}

/// A number of bytes with three digits and a unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.*} {}", usize::from(value < 100.0), UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (8 << 20, "8.0 MiB"), (500 << 30, "500 GiB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
