//! Small objects that people can read, under a hash that covers every byte of them.
//!
//! ```text
//! JSON, indented
//! xxh3-128 0123456789abcdef0123456789abcdef
//! ```
//!
//! The last line is the XXH3-128 of all bytes before it, in lower case; it ends with a newline, and nothing follows.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_128;

const LABEL: &str = "xxh3-128 ";
const LAST_LINE_BYTES: usize = LABEL.len() + 32 + 1;

/// The bytes of a value.
pub(super) fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("strings and numbers are always JSON");
    bytes.push(b'\n');
    let last = last_line(&bytes);
    bytes.extend_from_slice(last.as_bytes());
    bytes
}

fn last_line(bytes: &[u8]) -> String {
    format!("{LABEL}{:032x}\n", xxh3_128(bytes))
}

/// The value of bytes that [`seal`] made; the error says what is wrong with them.
pub(super) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let split = bytes.len().checked_sub(LAST_LINE_BYTES).ok_or("it ends too early")?;
    let (text, last) = bytes.split_at(split);
    if last != last_line(text).as_bytes() {
        return Err("it does not match its hash".into());
    }
    serde_json::from_slice(text).map_err(|error| format!("it is sound, and not what this program knows: {error}"))
}

/// Numbers that JSON readers would round, as hexadecimal digits.
macro_rules! hex {
    ($name:ident, $number:ty) => {
        pub(super) mod $name {
            use serde::de::Error;
            use serde::{Deserialize, Deserializer, Serializer};

            const DIGITS: usize = <$number>::BITS as usize / 4;

            pub(in crate::backup) fn serialize<S: Serializer>(number: &$number, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&format!("{number:0DIGITS$x}"))
            }

            pub(in crate::backup) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<$number, D::Error> {
                let text = String::deserialize(from)?;
                let lower = text.len() == DIGITS
                    && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
                let number = lower.then(|| <$number>::from_str_radix(&text, 16).ok()).flatten();
                number.ok_or_else(|| D::Error::custom(format!("not {DIGITS} hexadecimal digits")))
            }
        }
    };
}

hex!(hex64, u64);
hex!(hex128, u128);

/// Bytes as hexadecimal digits.
pub(super) mod hex_bytes {
    use std::fmt::Write;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::backup) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        to.serialize_str(&text)
    }

    pub(in crate::backup) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        let byte = |pair: &[u8]| Some(u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).expect("two digits"));
        let bytes = text.as_bytes().chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>();
        bytes
            .filter(|_| text.len().is_multiple_of(2))
            .ok_or_else(|| D::Error::custom("not bytes as hexadecimal digits"))
    }
}
