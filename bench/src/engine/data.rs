//! Keys and values: the same for all engines, and no smaller when compressed.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const POOL_BYTES: usize = 16 << 20;

/// The key of an entry: 16 bytes that look random, the same in every run.
pub fn key(number: u64) -> [u8; 16] {
    let mut rng = SmallRng::seed_from_u64(number ^ 0x5eed_ca1a);
    rng.random()
}

/// The key of an entry where keys ascend: 16 bytes, ordered as the numbers are.
pub fn ascending_key(number: u64) -> [u8; 16] {
    let mut key = key(number);
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// Where values are cut from.
pub struct Values {
    pool: Vec<u8>,
    length: usize,
}

impl Values {
    /// Values of so many bytes.
    pub fn new(length: usize) -> Self {
        let mut pool = vec![0; POOL_BYTES + length];
        SmallRng::seed_from_u64(length as u64).fill_bytes(&mut pool);
        Self { pool, length }
    }

    /// Some value.
    pub fn any(&self, rng: &mut SmallRng) -> &[u8] {
        let start = rng.random_range(0..POOL_BYTES);
        &self.pool[start..start + self.length]
    }
}
