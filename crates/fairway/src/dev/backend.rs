//! `--backend NAMESPACE/SERVICE:PORT=HOST:PORT`: a local process that replaces a Service port.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use fairway_translate::objects::{Kind, ObjectKey};

use crate::flags::UsageError;

/// Service ports and the addresses that replace them.
pub(super) type Backends = BTreeMap<(ObjectKey, String), SocketAddr>;

/// Parses the values of all `--backend` flags. The port is written as in the Ingress, by number or name.
pub(super) fn parse(texts: &[String]) -> Result<Backends, UsageError> {
    texts.iter().map(|text| one(text)).collect()
}

fn one(text: &str) -> Result<((ObjectKey, String), SocketAddr), UsageError> {
    let wrong = |what: &str| {
        let expected = "expected NAMESPACE/SERVICE:PORT=HOST:PORT, such as shop/cart:80=127.0.0.1:3000";
        UsageError(format!("--backend {text}: {what}{expected}"))
    };
    let (service, target) = text.split_once('=').ok_or_else(|| wrong(""))?;
    let (service, port) = service.rsplit_once(':').filter(|(_, port)| !port.is_empty()).ok_or_else(|| wrong(""))?;
    let (namespace, name) = service.split_once('/').ok_or_else(|| wrong("which namespace? "))?;
    if namespace.is_empty() || name.is_empty() {
        return Err(wrong(""));
    }
    // A name such as localhost is resolved once, now.
    let mut addresses = target.to_socket_addrs().map_err(|error| wrong(&format!("{target}: {error}; ")))?;
    let address = addresses.next().ok_or_else(|| wrong(&format!("{target} has no address; ")))?;
    Ok(((ObjectKey::new(Kind::Service, namespace, name), port.to_owned()), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ports_lead_to_addresses() {
        let backends = parse(&["shop/cart:http=127.0.0.1:3000".into(), "a/b:80=[::1]:1".into()]).unwrap();
        let key = (ObjectKey::new(Kind::Service, "shop", "cart"), "http".to_owned());
        assert_eq!(backends[&key], "127.0.0.1:3000".parse().unwrap());
        assert_eq!(backends.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_with_an_example() {
        for text in
            ["", "a", "cart:80=127.0.0.1:1", "a/b=127.0.0.1:1", "a/b:80=127.0.0.1", "/b:80=127.0.0.1:1", "a/b:=1:1"]
        {
            assert!(parse(&[text.into()]).unwrap_err().to_string().contains("shop/cart:80=127.0.0.1:3000"), "{text}");
        }
    }
}
