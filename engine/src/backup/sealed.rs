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

/// Numbers that JSON readers would round, as hexadecimal digits, the highest first.
macro_rules! number_as_hex {
    ($name:ident, $number:ty) => {
        pub(super) mod $name {
            use serde::{Deserializer, Serializer};

            pub(in crate::backup) fn serialize<S: Serializer>(number: &$number, to: S) -> Result<S::Ok, S::Error> {
                hex::serde::serialize(number.to_be_bytes(), to)
            }

            pub(in crate::backup) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<$number, D::Error> {
                hex::serde::deserialize(from).map(<$number>::from_be_bytes)
            }
        }
    };
}

number_as_hex!(hex64, u64);
number_as_hex!(hex128, u128);
