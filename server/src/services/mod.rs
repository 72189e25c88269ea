//! The gRPC services of a node, and their mounting on one port.
//!
//! Contract: messages up to [`calamus_proto::MAX_MESSAGE_BYTES`] are taken and given; a longer one is refused by the
//! transport before it is read. Health says SERVING only while the node is ready. No page of the map is referred to
//! across an await: answers are copied first.

mod backup;
mod cluster;
mod kv;
mod scan;
mod seed_stream;
mod watch;

use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::backup_server::BackupServer;
use calamus_proto::v1::cluster_server::ClusterServer;
use calamus_proto::v1::kv_server::KvServer;
use calamus_proto::v1::watch_server::WatchServer;
use calamus_replication::Node;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::backup::runs::Runs;
use crate::backup::targets::Targets;
use crate::planted;
use crate::seeding::Wishes;

/// The full names of the services whose health is reported, and "" for the node as a whole.
const HEALTH_NAMES: [&str; 5] = ["", "calamus.v1.Kv", "calamus.v1.Watch", "calamus.v1.Cluster", "calamus.v1.Backup"];

/// All services of `node`, and the reporter of their health, which starts as NOT_SERVING.
pub async fn routes(
    node: &Node,
    targets: Targets,
    runs: Runs,
    wishes: Wishes,
) -> Result<(Routes, Health), tonic_reflection::server::Error> {
    let (reporter, health_server) = tonic_health::server::health_reporter();
    let health = Health { reporter };
    health.set(false).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(calamus_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let kv = KvServer::new(kv::KvService::new(node.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let cluster = ClusterServer::new(cluster::ClusterService::new(node.clone(), wishes))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let backup = BackupServer::new(backup::BackupService::new(node.clone(), targets, runs))
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let watch = WatchServer::new(watch::WatchService::new(node.clone())).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let routes = if planted::kv_is_shut() { Routes::default() } else { Routes::new(kv) };
    let routes = routes
        .add_service(watch)
        .add_service(cluster)
        .add_service(backup)
        .add_service(node.raft_server())
        .add_service(health_server)
        .add_service(reflection);
    Ok((routes, health))
}

/// The health of the node as `grpc.health.v1` tells it.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Whether the node is ready to serve.
    pub async fn set(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in HEALTH_NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
