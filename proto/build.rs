//! Compiles the protos with a compiler written in Rust: no `protoc` is needed.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 5] = [
    "calamus/v1/kv.proto",
    "calamus/v1/watch.proto",
    "calamus/v1/cluster.proto",
    "calamus/v1/backup.proto",
    "calamus/raft/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // For the reflection service.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
