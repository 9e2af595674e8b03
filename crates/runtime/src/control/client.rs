//! Asking a running router.

use super::protocol::{Command, MAX_LINE, Reply};
use anyhow::{Context as _, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to a router's control socket.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// # Errors
    /// Nobody listens there, or not for us.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot reach a router at `{}`", path.display()))?;
        Ok(Self::over(stream))
    }

    pub(super) fn over(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Asks, and gives every reply but the last to `each`.
    ///
    /// # Errors
    /// The router refuses, with its reason; or it went away.
    pub fn ask(
        &mut self,
        command: &Command,
        mut each: impl FnMut(Reply) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.send(command)?;
        while let Some(reply) = self.next_reply()? {
            each(reply)?;
        }
        Ok(())
    }

    /// Asks, and gathers every reply but the last.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn call(&mut self, command: &Command) -> anyhow::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        self.ask(command, |reply| {
            replies.push(reply);
            Ok(())
        })?;
        Ok(replies)
    }

    /// Sends a command without waiting; [`Client::next_reply`] reads what comes.
    ///
    /// # Errors
    /// The router went away.
    pub fn send(&mut self, command: &Command) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).context("the router went away")
    }

    /// Ends a stream: what happened so far still comes, then `None`.
    ///
    /// # Errors
    /// The router went away.
    pub fn end_stream(&mut self) -> anyhow::Result<()> {
        end_stream(self.stream.get_mut())
    }

    /// What ends a stream while somebody else waits for its replies.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn stream_end(&self) -> anyhow::Result<StreamEnd> {
        self.clone_writer().map(StreamEnd)
    }

    /// The next reply; `None` once the command is carried out.
    ///
    /// # Errors
    /// The router refuses, with its reason; or it went away.
    pub fn next_reply(&mut self) -> anyhow::Result<Option<Reply>> {
        let mut line = String::new();
        let len = (&mut self.stream)
            .take(MAX_LINE as u64)
            .read_line(&mut line)
            .context("no answer from the router")?;
        if len == 0 {
            bail!("the router went away");
        }
        match serde_json::from_str(&line).context("the router says what this version does not understand")? {
            Reply::Done => Ok(None),
            Reply::Error { message } => bail!("{message}"),
            reply => Ok(Some(reply)),
        }
    }

    /// The connection once more, to write to: what was read ahead stays here.
    pub(super) fn clone_writer(&self) -> anyhow::Result<UnixStream> {
        self.stream.get_ref().try_clone().context("no descriptor for the connection")
    }

    /// How long [`Client::next_reply`] waits; for ever unless this is called.
    ///
    /// # Errors
    /// `timeout` is zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> anyhow::Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(timeout)?)
    }
}

/// Ends a stream of replies that another thread reads.
#[derive(Debug)]
pub struct StreamEnd(UnixStream);

impl StreamEnd {
    /// As [`Client::end_stream`].
    ///
    /// # Errors
    /// The router went away.
    pub fn end(&mut self) -> anyhow::Result<()> {
        end_stream(&mut self.0)
    }
}

/// Tells the router at the other end that its stream of replies is to end.
pub(super) fn end_stream(writer: &mut UnixStream) -> anyhow::Result<()> {
    writer.write_all(b"\n").context("the router went away")
}
