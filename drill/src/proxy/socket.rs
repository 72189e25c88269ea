//! A socket that is reset if it is dropped early.

use tokio::net::TcpStream;

/// A socket whose end is a reset, unless it was finished. So whatever ends a connection's task, no peer takes it for a normal
/// end.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    finished: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Socket {
        // Pieces are passed on as they come. Where that cannot be set, they only come later.
        let _ = stream.set_nodelay(true);
        Socket { stream, finished: false }
    }

    /// From now on its end is a normal one.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.finished {
            // It fails on a socket that the other side has reset; then nothing is to be done.
            let _ = self.stream.set_zero_linger();
        }
    }
}
