//! One node of a scratch cluster: its place, its process, what it says of itself.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::{NodeStatus, StatusRequest};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

use super::door::{DiskTrouble, Door};
use crate::ports::free_address;
use crate::process::Process;
use crate::trouble::Trouble;

/// How long a question to one node may take: a frozen one must not hold up the others.
const ASK: Duration = Duration::from_millis(800);

/// A node, running or not.
pub struct Node {
    name: String,
    address: String,
    directory: PathBuf,
    log: PathBuf,
    door: Door,
    channel: Channel,
    process: Option<Process>,
    retired: bool,
}

impl Node {
    /// Node `number`, counted from 1, with a free port. Nothing is started.
    pub(super) fn plan(number: usize, home: &Path) -> Result<Node, Trouble> {
        let (name, address) = (format!("n{number}"), free_address()?);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Ok(Node {
            directory: home.join(&name),
            log: home.join(format!("{name}.log")),
            door: Door::new(home.join(format!("{name}.disk")))?,
            channel: endpoint.connect_timeout(ASK).tcp_nodelay(true).connect_lazy(),
            name,
            address,
            process: None,
            retired: false,
        })
    }

    /// n1, n2, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// HOST:PORT.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its data, journal and identity.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Whether it does not belong to the cluster any more.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Lets this go wrong on its disk from now on; nothing, by default.
    ///
    /// # Errors
    /// When its control file cannot be written.
    pub fn set_disk(&self, trouble: DiskTrouble) -> Result<(), Trouble> {
        self.door.set(trouble)
    }

    pub(super) fn spawn(
        &mut self,
        program: &Path,
        arguments: Vec<String>,
        environment: &[(String, String)],
    ) -> Result<(), Trouble> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let directory = self.directory.to_str().ok_or_else(|| Trouble::new("the directory's path is not UTF-8"))?;
        let mut all = arguments;
        all.extend(["--dir".to_owned(), directory.to_owned()]);
        let environment = [environment, &self.door.environment()].concat();
        let process = Process::start(program, &all, &environment, &self.log)
            .map_err(|error| Trouble::during(format!("cannot start {} of {}", program.display(), self.name), error))?;
        self.process = Some(process);
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends a signal, if it runs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Trouble> {
        match &self.process {
            Some(process) => {
                process.signal(signal).map_err(|error| Trouble::during(format!("cannot signal {}", self.name), error))
            }
            None => Ok(()),
        }
    }

    /// Stops it in its tracks.
    ///
    /// # Errors
    /// When it does not run, or does not stop.
    pub async fn freeze(&self) -> Result<(), Trouble> {
        let process = self.process.as_ref().ok_or_else(|| Trouble::new(format!("{} does not run", self.name)))?;
        process.freeze().await.map_err(|error| Trouble::during(format!("cannot freeze {}", self.name), error))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<(), Trouble> {
        self.signal(Signal::CONT)
    }

    pub(super) async fn terminate(&mut self, signal: Signal, limit: Duration) -> Result<(), Trouble> {
        let Some(mut process) = self.process.take() else {
            return Err(Trouble::new(format!("{} does not run", self.name)));
        };
        process.signal(signal)?;
        let status = process.end(limit).await;
        let status = status.map_err(|error| Trouble::during(&self.name, error))?;
        if status.code() == Some(0) {
            return Ok(());
        }
        Err(Trouble::new(format!("{} ended with {status}; its log ends:\n{}", self.name, process.log_tail())))
    }

    /// How it ended, if it has without being asked.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::try_wait)
    }

    /// What it says of itself; `None` if it does not answer.
    pub async fn status(&self) -> Option<NodeStatus> {
        self.process.as_ref()?;
        let mut client = ClusterClient::new(self.channel.clone());
        let answer = tokio::time::timeout(ASK, client.status(StatusRequest { all_nodes: false })).await;
        answer.ok()?.ok()?.into_inner().node
    }

    /// Whether it says that it is ready to serve.
    pub async fn is_serving(&self) -> bool {
        use tonic_health::pb::health_check_response::ServingStatus;
        use tonic_health::pb::health_client::HealthClient;
        let mut client = HealthClient::new(self.channel.clone());
        let answer = tokio::time::timeout(ASK, client.check(tonic_health::pb::HealthCheckRequest::default())).await;
        let serving = i32::from(ServingStatus::Serving);
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.into_inner().status == serving))
    }
}
