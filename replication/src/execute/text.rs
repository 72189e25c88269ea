//! How errors name keys and operations.

use calamus_proto::v1::Operation;
use calamus_proto::v1::operation::Kind;

/// The bytes of a key that an error shows.
const SHOWN_BYTES: usize = 48;

/// A key as an error names it: escaped, in quotes, and cut when it is long.
#[must_use]
pub fn key_text(key: &[u8]) -> String {
    match key.get(..SHOWN_BYTES) {
        Some(shown) if key.len() > SHOWN_BYTES => format!("\"{}\"... ({} bytes)", shown.escape_ascii(), key.len()),
        _ => format!("\"{}\"", key.escape_ascii()),
    }
}

/// The name of an operation's kind as the protocol has it.
#[must_use]
pub fn kind_name(operation: &Operation) -> &'static str {
    match &operation.kind {
        None => "no kind",
        Some(Kind::Put(_)) => "put",
        Some(Kind::Delete(_)) => "delete",
        Some(Kind::DeleteRange(_)) => "delete_range",
        Some(Kind::Get(_)) => "get",
        Some(Kind::Scan(_)) => "scan",
        Some(Kind::Add(_)) => "add",
        Some(Kind::PutNext(_)) => "put_next",
        Some(Kind::CreateTree(_)) => "create_tree",
        Some(Kind::DropTree(_)) => "drop_tree",
        Some(Kind::RenameTree(_)) => "rename_tree",
        Some(Kind::Session(_)) => "session",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_and_cut() {
        assert_eq!(key_text(b"a\x00\"b"), r#""a\x00\"b""#);
        assert_eq!(key_text(&[b'x'; SHOWN_BYTES]), format!("\"{}\"", "x".repeat(SHOWN_BYTES)));
        assert_eq!(key_text(&[b'x'; 100]), format!("\"{}\"... (100 bytes)", "x".repeat(SHOWN_BYTES)));
    }
}
