//! Reads and writes as callers of the door see them, whole, over calls that take as much as they like.
//!
//! A kernel may read or write less than it was asked to, or be interrupted before it did anything. The door's contract
//! says otherwise ([`super::DiskFile`]), so that no caller needs a loop of its own; these are the loops, for every door
//! that ends in such calls.

use std::io::{Error, ErrorKind, IoSlice};

/// Fills `buffer` from `offset` on, as far as the file goes; returns how much. `some` reads a part of it, and 0 bytes
/// at the end of the file only. An error comes with the place where it happened.
pub(super) fn read(
    buffer: &mut [u8],
    offset: u64,
    mut some: impl FnMut(&mut [u8], u64) -> Result<usize, Error>,
) -> Result<usize, (u64, Error)> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        match some(&mut buffer[done..], at) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((at, error)),
        }
    }
    Ok(done)
}

/// Writes all of `parts` from `offset` on. `some` writes a part of it; that it writes nothing is an error. An error
/// comes with the place where it happened: what is before it was written.
pub(super) fn write(
    parts: &[IoSlice<'_>],
    offset: u64,
    mut some: impl FnMut(&[IoSlice<'_>], u64) -> Result<usize, Error>,
) -> Result<(), (u64, Error)> {
    let mut parts = parts.to_vec();
    let mut rest = &mut parts[..];
    let mut at = offset;
    // Drops leading empty parts, so that a write of 0 bytes below means trouble.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match some(rest, at) {
            Ok(0) => return Err((at, ErrorKind::WriteZero.into())),
            Ok(taken) => {
                IoSlice::advance_slices(&mut rest, taken);
                at += taken as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((at, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that take 1, 2, 3... bytes, every third of them interrupted.
    fn pieces() -> impl FnMut(usize) -> Result<usize, Error> {
        let mut call = 0;
        move |most| {
            call += 1;
            if call % 3 == 0 { Err(ErrorKind::Interrupted.into()) } else { Ok(most.min(call)) }
        }
    }

    #[test]
    fn what_is_taken_in_pieces_is_whole_for_the_caller() {
        let file: Vec<u8> = (0..100).collect();
        let mut piece = pieces();
        let mut buffer = [0; 60];
        let got = read(&mut buffer, 10, |buffer, at| {
            let at = at as usize;
            let taken = piece(buffer.len().min(file.len() - at))?;
            buffer[..taken].copy_from_slice(&file[at..at + taken]);
            Ok(taken)
        });
        assert_eq!((got.expect("no error"), &buffer[..]), (60, &file[10..70]));

        let (mut piece, mut written) = (pieces(), Vec::new());
        let parts = [IoSlice::new(&[]), IoSlice::new(&file[..33]), IoSlice::new(&[]), IoSlice::new(&file[33..])];
        let done = write(&parts, 5, |parts, at| {
            assert_eq!(at, 5 + written.len() as u64);
            let taken = piece(parts[0].len())?;
            written.extend_from_slice(&parts[0][..taken]);
            Ok(taken)
        });
        assert!(done.is_ok() && written == file);
    }

    #[test]
    fn an_error_says_where_and_nothing_is_tried_again() {
        let mut calls = 0;
        let failed = read(&mut [0; 10], 100, |_, _| {
            calls += 1;
            if calls == 1 { Ok(4) } else { Err(ErrorKind::Other.into()) }
        });
        assert_eq!((failed.expect_err("it failed").0, calls), (104, 2));
        let (at, error) = write(&[IoSlice::new(&[1; 10])], 7, |_, _| Ok(0)).expect_err("nothing was taken");
        assert_eq!((at, error.kind()), (7, ErrorKind::WriteZero));
        assert_eq!(read(&mut [0; 10], 0, |_, _| Ok(0)).expect("the end"), 0);
    }
}
