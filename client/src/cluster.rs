//! Status of the cluster, and changes to it.

use calamus_proto::v1::{
    AddRequest, AddResponse, ChangeResponse, FreezeRequest, FreezeResponse, Member, ObserveRequest, PromoteRequest,
    RemoveRequest, ReplaceRequest, SeedFromRequest, StatusRequest, StatusResponse, TransferRequest,
};
use tonic::Response;

use crate::client::{Client, IfUnknown, ReadFrom};
use crate::nodes::Node;
use crate::outcome::{ReadError, TxnError};
use crate::retry::Refusal;

/// The cluster's own affairs. Changes end like transactions: made, not made, or unknown.
#[derive(Clone, Debug)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Cluster {
        Cluster { client }
    }

    /// What one node sees; with `all_nodes`, each member's own view too.
    ///
    /// # Errors
    /// If no node answers within the deadline.
    pub async fn status(&self, all_nodes: bool) -> Result<StatusResponse, ReadError> {
        let request = StatusRequest { all_nodes };
        self.client
            .read(|node: Node, _| async move { node.cluster().status(request).await.map(Response::into_inner) })
            .await
    }

    /// What the node at this address sees. Asked once: a node that does not answer is what the caller wants to know.
    ///
    /// # Errors
    /// If that node does not answer.
    pub async fn status_of(&self, address: &str) -> Result<StatusResponse, ReadError> {
        let request = StatusRequest { all_nodes: false };
        self.once(address, |node| async move { node.cluster().status(request).await }).await
    }

    /// Adds a node. Adding the same raft id again changes nothing, so it is repeated after an unknown outcome.
    ///
    /// # Errors
    /// If it is not known to be made.
    pub async fn add(&self, request: AddRequest) -> Result<AddResponse, TxnError> {
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.cluster().add(request).await.map(Response::into_inner) }
        };
        let deadline = self.client.options().deadline;
        Ok(self.client.change(ReadFrom::Leader, IfUnknown::Repeat, deadline, call).await?.0)
    }

    /// Removes a node by name; returns the members that remain. `force_cluster_id`: see the proto; empty for no force.
    ///
    /// # Errors
    /// If it is not known to be made.
    pub async fn remove(&self, name: &str, force_cluster_id: &str) -> Result<Vec<Member>, TxnError> {
        let request = RemoveRequest { name: name.to_owned(), force_cluster_id: force_cluster_id.to_owned() };
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.cluster().remove(request).await.map(Response::into_inner) }
        };
        let deadline = self.client.options().deadline;
        Ok(self.client.change(ReadFrom::Leader, IfUnknown::Stop, deadline, call).await?.0.members)
    }

    /// Makes a voter of a member that is none, once it has caught up. Asked again, it says how far that is.
    ///
    /// # Errors
    /// If it is not known to be agreed on.
    pub async fn promote(&self, name: &str) -> Result<ChangeResponse, TxnError> {
        let request = PromoteRequest { name: name.to_owned() };
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.cluster().promote(request).await.map(Response::into_inner) }
        };
        let deadline = self.client.options().deadline;
        Ok(self.client.change(ReadFrom::Leader, IfUnknown::Repeat, deadline, call).await?.0)
    }

    /// Makes an observer of a member. `force_cluster_id`: as for [`Self::remove`].
    ///
    /// # Errors
    /// If it is not known to be made.
    pub async fn observe(&self, name: &str, force_cluster_id: &str) -> Result<ChangeResponse, TxnError> {
        let request = ObserveRequest { name: name.to_owned(), force_cluster_id: force_cluster_id.to_owned() };
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.cluster().observe(request).await.map(Response::into_inner) }
        };
        let deadline = self.client.options().deadline;
        Ok(self.client.change(ReadFrom::Leader, IfUnknown::Repeat, deadline, call).await?.0)
    }

    /// Puts a node in the place of a member of another name, once it has caught up. Asked again, it says how far that is.
    ///
    /// # Errors
    /// If it is not known to be agreed on.
    pub async fn replace(&self, request: ReplaceRequest) -> Result<ChangeResponse, TxnError> {
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.cluster().replace(request).await.map(Response::into_inner) }
        };
        let deadline = self.client.options().deadline;
        Ok(self.client.change(ReadFrom::Leader, IfUnknown::Repeat, deadline, call).await?.0)
    }

    /// Hands leadership to the named voter, or with an empty name to the most caught-up one; returns the new leader's name.
    ///
    /// # Errors
    /// If it is not known to be made.
    pub async fn transfer(&self, to: &str) -> Result<String, TxnError> {
        let request = TransferRequest { to: to.to_owned() };
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.cluster().transfer(request).await.map(Response::into_inner) }
        };
        let deadline = self.client.options().deadline;
        let leader = self.client.change(ReadFrom::Leader, IfUnknown::Stop, deadline, call).await?.0.leader;
        self.client.discovery().refresh().await;
        Ok(leader)
    }

    /// Stops (or lets go on) the admission of transactions on the node at this address.
    ///
    /// # Errors
    /// If that node does not answer.
    pub async fn freeze(&self, address: &str, frozen: bool) -> Result<FreezeResponse, ReadError> {
        self.once(address, |node| async move { node.cluster().freeze(FreezeRequest { frozen }).await }).await
    }

    /// Says what the node at this address is to be filled from, if it has to be: `any`, `leader`, `node:NAME`, or
    /// `backup:TARGET` for a target of its configuration.
    ///
    /// # Errors
    /// If that node does not answer, or refuses it.
    pub async fn seed_from(&self, address: &str, from: &str) -> Result<(), ReadError> {
        let request = SeedFromRequest { from: from.to_owned() };
        self.once(address, |node| async move { node.cluster().seed_from(request).await }).await.map(drop)
    }

    /// One attempt at one node.
    async fn once<T, F>(&self, address: &str, call: impl FnOnce(Node) -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        let wait = self.client.options().attempt_timeout;
        let nodes = &self.client.discovery().nodes;
        let answer = tokio::time::timeout(wait, async {
            let node = nodes.connect(address).await?;
            call(node.clone()).await.map(Response::into_inner).map_err(|status| {
                let refusal = Refusal::of(&status, address);
                if refusal.broken {
                    nodes.forget(&node);
                }
                refusal
            })
        });
        let answer = answer.await.unwrap_or_else(|_| Err(Refusal::silent(address, wait)));
        answer.map_err(|refusal| ReadError(refusal.failure))
    }
}
