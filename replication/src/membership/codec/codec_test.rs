use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn info(name: &str, address: &str, aim: Aim) -> NodeInfo {
    NodeInfo { name: name.to_owned(), address: address.to_owned(), aim, replaces: None }
}

fn sample() -> Membership {
    let nodes = BTreeMap::from([
        (1, info("a", "h:1", Aim::Voter)),
        (2, info("b", "h:2", Aim::Voter)),
        (7, NodeInfo { replaces: Some(2), ..info("l", "h:7", Aim::Learner) }),
        (0x0102_0304_0506_0708, info("obs", "h:33", Aim::Observer)),
    ]);
    Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], nodes).expect("valid")
}

#[test]
fn the_bytes_are_these_for_ever() {
    #[rustfmt::skip]
    let golden: &[u8] = &[
        b'C', b'M', b'B', b'1', 2, 0, 4, 0,
        1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'a', 3, 0, b'h', b':', b'1',
        2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'b', 3, 0, b'h', b':', b'2',
        7, 0, 0, 0, 0, 0, 0, 0, 6, 1, 0, b'l', 3, 0, b'h', b':', b'7', 2, 0, 0, 0, 0, 0, 0, 0,
        8, 7, 6, 5, 4, 3, 2, 1, 1, 3, 0, b'o', b'b', b's', 4, 0, b'h', b':', b'3', b'3',
    ];
    assert_eq!(&encode(&sample())[..], golden);
    assert_eq!(decode(golden), Ok(sample()));
}

#[test]
fn the_empty_membership_survives() {
    let empty = Membership::default();
    assert_eq!(decode(&encode(&empty)), Ok(empty));
}

#[test]
fn every_shorter_part_is_refused_and_so_is_a_longer_one() {
    let bytes = encode(&sample());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length} of {} bytes were taken", bytes.len());
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(decode(&longer).is_err());
}

#[test]
fn no_flipped_bit_makes_it_panic_and_structure_is_checked() {
    let bytes = encode(&sample());
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = decode(&bad) {
            assert_ne!(other, sample(), "bit {bit} means nothing");
        }
    }
}
