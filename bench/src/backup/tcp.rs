//! A file's way to another one through a connection of this machine: what a seeding can be at best.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use anyhow::Result;

/// What is read and written at a time: as much as a chunk of a seeding.
const BYTES: usize = 1 << 20;

/// One thread reads and sends, another receives and writes, and syncs at the end. Returns how many bytes it was.
pub fn copy(from: &Path, to: &Path) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut there = TcpStream::connect(listener.local_addr()?)?;
    let (mut here, _) = listener.accept()?;
    let (mut source, mut target) = (File::open(from)?, File::create(to)?);
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || -> Result<u64> {
            let sent = pass(&mut source, &mut there)?;
            // The other side sees the end when this one is dropped.
            Ok(sent)
        });
        let received = pass(&mut here, &mut target)?;
        target.sync_data()?;
        let sent = sending.join().expect("sending does not panic")?;
        anyhow::ensure!(sent == received, "{sent} bytes were sent, {received} received");
        Ok(received)
    })
}

fn pass(from: &mut impl Read, to: &mut impl Write) -> Result<u64> {
    let mut buffer = vec![0; BYTES];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(bytes);
        }
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

#[test]
fn what_arrives_is_what_was_sent() {
    let home = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| home.path().join(name));
    let content: Vec<u8> = (0..3 * BYTES + 77).map(|at| (at % 251) as u8).collect();
    std::fs::write(&from, &content).unwrap();
    assert_eq!(copy(&from, &to).unwrap(), content.len() as u64);
    assert!(std::fs::read(&to).unwrap() == content);
}
