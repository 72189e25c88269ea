//! A node that is asked about backups.

use std::time::Duration;

use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::backup_client::BackupClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::cli::Endpoint;
use crate::peer;

/// How long a connection may take.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What to do about a node that does not do what it is asked.
pub const NEXT: &str = "`calamus backup status --node HOST:PORT` shows the node's targets, and what runs";

/// A client of the node's `Backup` service.
///
/// # Errors
/// When there is no connection.
pub async fn connect(address: &Endpoint) -> Result<BackupClient<Channel>, Status> {
    let channel = peer::channel(address.as_str(), CONNECT_LIMIT).await?;
    Ok(BackupClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}
