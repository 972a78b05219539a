//! Finds the master that Sentinels name.

use bytes::Bytes;
use futures_util::future::select_ok;

use super::connector::{Connector, NodeAddress, no_login};
use super::{Command, ConnectionError, Reply};

impl Connector {
    /// The Sentinels of the URL, each without a login.
    fn sentinels(&self) -> impl Iterator<Item = NodeAddress> {
        self.nodes(no_login())
    }

    /// The same Sentinel with the login of the URL; a Sentinel has no databases.
    fn with_login(&self, sentinel: &NodeAddress) -> NodeAddress {
        NodeAddress { login: self.0.login.clone().set_db(0), ..sentinel.clone() }
    }

    /// A server with the login of the URL.
    fn server(&self, host: String, port: u16) -> NodeAddress {
        NodeAddress { host, port, login: self.0.login.clone() }
    }

    /// Asks all Sentinels at once, since some may be down, and takes the first answer that is true.
    ///
    /// # Errors
    /// If no Sentinel names a master, or one refuses the login.
    pub(super) async fn find_master(&self, name: &str) -> Result<NodeAddress, ConnectionError> {
        let sentinels: Vec<_> = self.sentinels().collect();
        let answers = sentinels.iter().map(|sentinel| Box::pin(self.master_by(sentinel, name)));
        // Each Sentinel may have failed in another way, so that no single error says what is wrong.
        select_ok(answers).await.map(|(master, _)| master).map_err(|error| match error {
            ConnectionError::Credentials => error,
            _ => ConnectionError::NoMaster,
        })
    }

    async fn master_by(&self, sentinel: &NodeAddress, name: &str) -> Result<NodeAddress, ConnectionError> {
        let question = || Command::new("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name.to_owned());
        let mut answer = self.query(sentinel, question()).await?;
        if answer.is_error("NOAUTH") {
            answer = self.query(&self.with_login(sentinel), question()).await?;
        }
        let Reply::Array(parts) = answer else { return Err(ConnectionError::NoMaster) };
        let [Reply::Bytes(host), Reply::Bytes(port)] = parts.as_slice() else { return Err(ConnectionError::NoMaster) };
        let text = |bytes: &Bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ConnectionError::NoMaster);
        let port = text(port)?.parse().map_err(|_| ConnectionError::NoMaster)?;
        let master = self.server(text(host)?, port);
        // During a failover, a Sentinel may name a server that is not the master any more.
        match self.query(&master, Command::new("ROLE")).await? {
            Reply::Array(parts) if parts.first() != Some(&Reply::Bytes("master".into())) => {
                Err(ConnectionError::NoMaster)
            }
            // Where `ROLE` is forbidden, the Sentinel is believed.
            _ => Ok(master),
        }
    }
}
