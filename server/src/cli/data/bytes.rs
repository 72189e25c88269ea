//! Bytes on the command line, in lines and in JSON.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::cli::{Exit, Failure};

/// Text as its bytes, or hex digits as the bytes they mean.
pub(in crate::cli) fn parse(text: &str, hex: bool, what: &str) -> Result<Vec<u8>, Failure> {
    if !hex {
        return Ok(text.as_bytes().to_owned());
    }
    from_hex(text).map_err(|why| {
        let what = format!("{what} `{}` is not hex digits", shorten(text));
        Failure::new(what, why, "two digits a byte, for example 00ff; without --hex it is taken as text")
            .with_exit(Exit::Usage)
    })
}

/// The bytes that these hex digits mean; spaces are not allowed.
pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |(at, c): (usize, char)| {
        let value = c.to_digit(16).ok_or_else(|| format!("`{c}` at position {at} is no hex digit"))?;
        Ok(u8::try_from(value).expect("a hex digit is below 16"))
    };
    let digits = text.chars().enumerate().map(digit).collect::<Result<Vec<u8>, String>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} digits are not a whole number of bytes", digits.len()));
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Two digits a byte.
pub(in crate::cli) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

/// One line for people: UTF-8 as it is; tab, line end, backslash, other control characters and bytes that are no UTF-8 escaped,
/// so that every byte string has a line of its own.
pub(in crate::cli) fn escape(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        write!(line, "\\x{byte:02x}").expect("a string takes all");
                    }
                }
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(line, "\\x{byte:02x}").expect("a string takes all");
        }
    }
    line
}

/// Sets `name` to text, or `name_hex` if the bytes are no text or hex is wanted.
pub(in crate::cli) fn set_json(object: &mut Map<String, Value>, name: &str, bytes: &[u8], hex: bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !hex => object.insert(name.to_owned(), text.into()),
        _ => object.insert(format!("{name}_hex"), to_hex(bytes).into()),
    };
}

/// The beginning, for a message.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_bad_digits_are_named() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&all)).unwrap(), all);
        assert_eq!(from_hex("00Ff").unwrap(), [0, 255]);
        assert!(from_hex("0").unwrap_err().contains("1 digits"));
        assert!(from_hex("0g").unwrap_err().contains("`g` at position 1"));
        assert!(from_hex("é0").unwrap_err().contains("`é` at position 0"));
        assert_eq!(parse("zz", true, "key").unwrap_err().exit, Exit::Usage);
        assert_eq!(parse("zz", false, "key").unwrap(), b"zz");
    }

    #[test]
    fn different_bytes_have_different_lines_without_control_characters() {
        let samples: [&[u8]; 8] =
            [b"a", b"\\x00", b"\0", b"a\tb", b"\xff", "caf\u{e9}".as_bytes(), b"\xe9", "\u{85}".as_bytes()];
        let lines: Vec<String> = samples.iter().map(|s| escape(s)).collect();
        let distinct: std::collections::BTreeSet<&String> = lines.iter().collect();
        assert_eq!(distinct.len(), samples.len(), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
        assert_eq!(lines[3], "a\\tb");
        assert_eq!(lines[5], "café");
    }

    #[test]
    fn json_is_text_where_it_can_be() {
        let mut object = Map::new();
        set_json(&mut object, "key", b"a", false);
        set_json(&mut object, "value", b"\xff", false);
        assert_eq!(Value::Object(object).to_string(), r#"{"key":"a","value_hex":"ff"}"#);
    }
}
