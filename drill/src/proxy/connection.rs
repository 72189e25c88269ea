//! One connection: two sockets, two directions.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Counts;
use super::direction::{Direction, queue, read_all, write_all};
use super::socket::Socket;

/// What all connections of a proxy share.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) target: Arc<str>,
    pub(super) to_target: Direction,
    pub(super) to_client: Direction,
    pub(super) counts: Arc<Counts>,
}

/// Passes bytes until both sides have ended. If one of them breaks, or this is dropped, both are reset.
pub(super) async fn relay(mut client: Socket, wire: Wire, number: u64) {
    // How it broke interests neither side, and the proxy has nobody to tell.
    if let Ok(target) = relay_to_target(&mut client, wire, number).await {
        target.finish();
        client.finish();
    }
}

async fn relay_to_target(client: &mut Socket, mut wire: Wire, number: u64) -> io::Result<Socket> {
    let (client_read, client_write) = client.stream.split();
    let (from_client, to_target) = queue();
    // It is read from the beginning, so that its end is seen while there is no target yet.
    let read_client = async {
        read_all(client_read, from_client, 2 * number).await;
        io::Result::Ok(())
    };
    let talk = async {
        // Asking for a connection is something to be held, too.
        wire.to_target.not_held().await;
        let mut target = Socket::new(TcpStream::connect(&*wire.target).await?);
        let (target_read, target_write) = target.stream.split();
        let (from_target, to_client) = queue();
        let (there, back, counts) = (&wire.to_target, &wire.to_client, &wire.counts);
        let read_target = async {
            read_all(target_read, from_target, 2 * number + 1).await;
            Ok(())
        };
        tokio::try_join!(
            read_target,
            write_all(to_target, target_write, there.clone(), back.clone(), &counts.bytes_to_target),
            write_all(to_client, client_write, back.clone(), there.clone(), &counts.bytes_to_client),
        )?;
        Ok(target)
    };
    let ((), target) = tokio::try_join!(read_client, talk)?;
    Ok(target)
}
