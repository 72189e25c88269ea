//! Checks what a leader sends before the consensus has it.
//!
//! For each frame of a request: header and payload match their checksums; the index follows the one before; the chain
//! value follows the frame before; and where this node holds a frame of the same log id, it is the same frame. The
//! last can only fail if two replicas differ below a common log id, which Raft forbids: it is reported as loudly as
//! possible and nothing is taken.
//!
//! Requests on one stream are pipelined: when the second arrives, the journal may not have the first yet. So a
//! [`ChainCheck`] lives as long as its stream and remembers where the stream stands.

use calamus_engine::Engine;
use calamus_engine::ids::{LogId, LogIndex};
use calamus_engine::journal::frame::Frame;
use calamus_proto::raft::v1 as wire;
use tonic::Status;

use super::convert;

/// The index behind `index`, which a peer says: any number may have come.
#[allow(clippy::result_large_err)]
fn after(index: LogIndex) -> Result<LogIndex, Status> {
    let next = index.0.checked_add(1).map(LogIndex);
    next.ok_or_else(|| Status::data_loss(format!("no entry can stand behind index {index}")))
}

/// The place where a stream of requests stands.
pub struct ChainCheck {
    engine: Engine,
    at: Option<(LogId, u64)>,
}

#[allow(clippy::result_large_err)]
impl ChainCheck {
    /// At the start of a stream.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine, at: None }
    }

    /// The frames of one request, all of them right.
    ///
    /// # Errors
    /// `DATA_LOSS` for bytes that are not a frame or do not follow, `FAILED_PRECONDITION` for a frame that differs
    /// from this node's of the same log id.
    pub fn take(
        &mut self,
        previous: Option<LogId>,
        previous_chain: Option<u64>,
        frames: Vec<wire::RawFrame>,
    ) -> Result<Vec<Frame>, Status> {
        let mut chain = self.chain_of(previous, previous_chain)?;
        let mut next = previous.map_or(Ok(LogIndex(0)), |log_id| after(log_id.index))?;
        let mut term = previous.map(|log_id| log_id.term);
        let mut checked = Vec::with_capacity(frames.len());
        for raw in frames {
            let frame = convert::frame_from_wire(raw)
                .map_err(|error| Status::data_loss(format!("frame {next} as it arrived: {error}")))?;
            let log_id = frame.log_id();
            if log_id.index != next || term.is_some_and(|term| log_id.term < term) {
                return Err(Status::data_loss(format!("frame {log_id} where index {next} must follow {previous:?}")));
            }
            if let Some(before) = chain
                && !frame.follows(before)
            {
                return Err(Status::data_loss(format!("frame {log_id} does not follow the chain value {before:016x}")));
            }
            self.compare(log_id, frame.chain())?;
            chain = Some(frame.chain());
            term = Some(log_id.term);
            next = after(next)?;
            checked.push(frame);
        }
        self.at = match checked.last() {
            Some(last) => Some((last.log_id(), last.chain())),
            None => previous.zip(chain),
        };
        Ok(checked)
    }

    /// The chain value of `previous`: from this stream, else from the journal, else as the sender says.
    fn chain_of(&self, previous: Option<LogId>, said: Option<u64>) -> Result<Option<u64>, Status> {
        let Some(log_id) = previous else {
            return Ok(Some(calamus_engine::journal::frame::CHAIN_START));
        };
        if let Some((at, chain)) = self.at
            && at == log_id
        {
            return Ok(Some(chain));
        }
        if let Some(said) = said {
            self.compare(log_id, said)?;
        }
        Ok(self.own_chain(log_id).or(said))
    }

    fn own_chain(&self, log_id: LogId) -> Option<u64> {
        let same = || self.engine.log_id(log_id.index) == Some(log_id);
        // Asked before and after: a cut in between would give the chain value of another frame.
        let chain = same().then(|| self.engine.chain_at(log_id.index)).flatten()?;
        same().then_some(chain)
    }

    fn compare(&self, log_id: LogId, chain: u64) -> Result<(), Status> {
        match self.own_chain(log_id) {
            Some(own) if own != chain => {
                tracing::error!(%log_id, own, theirs = chain, "two replicas differ in a frame of the same log id");
                Err(Status::failed_precondition(format!(
                    "frame {log_id} has chain value {chain:016x} at the sender and {own:016x} here: the histories differ"
                )))
            }
            _ => Ok(()),
        }
    }
}
