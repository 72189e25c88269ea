//! Clients of a node that put as long as something else goes on: the plain generated client, so no retry hides an error.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{Operation, Put, TxnRequest};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;

use super::data::TREE;
use super::writers::Written;
use crate::calamus::{LEADER_CONNECTIONS, connect, kv};

/// Bytes of which values are slices: enough that hardly two are equal.
const POOL_BYTES: usize = 8 << 20;

/// Who puts what.
#[derive(Clone, Copy)]
pub struct Clients {
    pub count: usize,
    /// Keys are drawn evenly from so many, which are there.
    pub entries: u64,
    pub value_bytes: usize,
}

impl Clients {
    /// Each replaces one entry a transaction, on the node at `address`, until `work` is done.
    pub async fn beside<T>(self, address: &str, work: impl Future<Output = Result<T>>) -> Result<(Written, T)> {
        let mut pool = vec![0; POOL_BYTES + self.value_bytes];
        SmallRng::seed_from_u64(1).fill_bytes(&mut pool);
        let pool = Bytes::from(pool);
        let channels = connect(address, LEADER_CONNECTIONS).await?;
        let ended = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut putting = JoinSet::new();
        for client in 0..self.count {
            let (channel, pool, ended) = (channels[client % channels.len()].clone(), pool.clone(), ended.clone());
            putting.spawn(async move {
                let mut random = SmallRng::seed_from_u64(client as u64);
                let mut latency = Histogram::<u64>::new(3)?;
                let mut kv = kv(channel);
                while !ended.load(Ordering::Acquire) {
                    let key = Bytes::copy_from_slice(&random.random_range(0..self.entries).to_be_bytes());
                    let start = random.random_range(0..POOL_BYTES);
                    let value = pool.slice(start..start + self.value_bytes);
                    let sent = Instant::now();
                    kv.txn(put(key, value)).await.context("a put beside a seeding")?;
                    latency.record(sent.elapsed().as_nanos() as u64)?;
                }
                anyhow::Ok(latency)
            });
        }
        let worked = work.await;
        let seconds = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Release);
        let mut latency = Histogram::new(3)?;
        while let Some(done) = putting.join_next().await {
            latency.add(done??)?;
        }
        Ok((Written { seconds, latency }, worked?))
    }
}

fn put(key: Bytes, value: Bytes) -> TxnRequest {
    let put = Put { tree: TREE.to_owned(), key, value, tree_must_exist: true };
    TxnRequest { operations: vec![Operation { kind: Some(Kind::Put(put)) }], ..TxnRequest::default() }
}
