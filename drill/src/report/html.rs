//! Text as HTML shows it.

/// The text with what HTML would take for markup escaped; control characters but line ends become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Microseconds as people read them: "480 us", "3.2 ms", "1.25 s".
pub(super) fn time(us: u64) -> String {
    let value = us as f64;
    match us {
        0..=999 => format!("{us} us"),
        1_000..=9_999 => format!("{:.1} ms", value / 1e3),
        10_000..=999_999 => format!("{:.0} ms", value / 1e3),
        1_000_000..=9_999_999 => format!("{:.2} s", value / 1e6),
        _ => format!("{:.1} s", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_for_markup() {
        assert_eq!(escape("<b title=\"x\">&'\u{7}"), "&lt;b title=&quot;x&quot;&gt;&amp;&#39; ");
        assert_eq!(escape("plain, ünïcode"), "plain, ünïcode");
    }

    #[test]
    fn times_have_two_or_three_digits() {
        let found: Vec<String> = [480, 3_240, 48_000, 1_254_000, 83_000_000].into_iter().map(time).collect();
        assert_eq!(found, ["480 us", "3.2 ms", "48 ms", "1.25 s", "83.0 s"]);
    }
}
