//! Whether Redis is configured to grow without bound, or to refuse writes.

use tokio::time::Instant;

use super::connector::RawConnection;
use super::{Command, Reply};

/// The advice for the memory settings of Redis. `None` if they are good, or cannot be read. All nodes of a Cluster are
/// taken to have the same.
pub(super) async fn memory_advice(connection: &RawConnection, deadline: Instant) -> Option<&'static str> {
    let (limit, policy) = memory_settings(connection, deadline).await?;
    advice(limit, &policy)
}

fn advice(limit: u64, policy: &str) -> Option<&'static str> {
    match (limit, policy) {
        (0, _) => Some("no maxmemory is set, so it grows until the machine has none left: set maxmemory"),
        (_, "noeviction") => {
            Some("maxmemory-policy is noeviction, so it refuses writes once it is full: set it to volatile-lru")
        }
        _ => None,
    }
}

/// `maxmemory` in bytes and `maxmemory-policy`, from `CONFIG` or, where that is forbidden, from `INFO`.
async fn memory_settings(connection: &RawConnection, deadline: Instant) -> Option<(u64, String)> {
    let setting = async |name: &'static str| {
        let command = Command::new("CONFIG").arg("GET").arg(name);
        match connection.run_anywhere(&command, deadline).await? {
            Reply::Array(parts) => match parts.into_iter().nth(1)? {
                Reply::Bytes(value) => Some(String::from_utf8_lossy(&value).into_owned()),
                _ => None,
            },
            _ => None,
        }
    };
    if let Some(limit) = setting("maxmemory").await {
        return Some((limit.parse().ok()?, setting("maxmemory-policy").await?));
    }
    let info = connection.run_anywhere(&Command::new("INFO").arg("memory"), deadline).await?;
    settings_in_info(&info)
}

/// The settings in the reply to `INFO memory`.
fn settings_in_info(info: &Reply) -> Option<(u64, String)> {
    let Reply::Bytes(info) = info else { return None };
    let info = String::from_utf8_lossy(info);
    let member = |name| info.lines().find_map(|line| line.strip_prefix(name));
    Some((member("maxmemory:")?.parse().ok()?, member("maxmemory_policy:")?.to_owned()))
}

/// The same advice from the reply to `INFO memory`.
pub(super) fn advice_from_info(info: &Reply) -> Option<&'static str> {
    let (limit, policy) = settings_in_info(info)?;
    advice(limit, &policy)
}
