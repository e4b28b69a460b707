//! Demands and shares in messages of the stream. What is not understood is left out: the limit stays divided as it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairway_model::{CountedClient, Demand, DemandReport, LimitKey, LimitKind, LimitPart, ShareDeal};

use crate::limit::{SCOPE, SHARES};
use crate::message::{Deal, Demands, OneDemand, OneLimit, OneShare};

/// The longest time that a burst may take to become available again. A limit that takes longer stays divided evenly, because that is too
/// long to wait.
// No limit: how long shares are remembered.
const LONGEST_SPAN: u32 = 600_000;

/// The scopes of a message, each once.
#[derive(Default)]
struct Scopes {
    list: Vec<String>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Scopes {
    fn limit(&mut self, key: &LimitKey) -> OneLimit {
        let scope = *self.numbers.entry(key.scope.clone()).or_insert_with(|| {
            self.list.push(key.scope.as_ref().to_owned());
            self.list.len() as u32 - 1
        });
        let client = match &key.client {
            CountedClient::V4(address) => Bytes::copy_from_slice(address),
            CountedClient::V6(network) => Bytes::copy_from_slice(network),
        };
        let kind = match key.kind {
            LimitKind::PerSecond => 1,
            LimitKind::PerMinute => 2,
            LimitKind::InProgress => 3,
        };
        OneLimit { scope, client, kind }
    }
}

/// The limits of a message.
struct Reader(Vec<Arc<str>>);

impl Reader {
    fn new(scopes: Vec<String>) -> Self {
        let scopes = scopes.into_iter().take(SHARES);
        Self(scopes.map(|scope| if scope.len() <= SCOPE { scope.into() } else { "".into() }).collect())
    }

    fn key(&self, limit: Option<OneLimit>) -> Option<LimitKey> {
        let OneLimit { scope, client, kind } = limit?;
        let scope = self.0.get(scope as usize).filter(|scope| !scope.is_empty())?.clone();
        let client = match client.len() {
            4 => CountedClient::V4(client.as_ref().try_into().ok()?),
            8 => CountedClient::V6(client.as_ref().try_into().ok()?),
            _ => return None,
        };
        let kind = match kind {
            1 => LimitKind::PerSecond,
            2 => LimitKind::PerMinute,
            3 => LimitKind::InProgress,
            _ => return None,
        };
        Some(LimitKey { scope, client, kind })
    }
}

impl From<&DemandReport> for Demands {
    fn from(report: &DemandReport) -> Self {
        let mut scopes = Scopes::default();
        let one = |demand: &Demand| OneDemand {
            limit: Some(scopes.limit(&demand.key)),
            now: demand.now.get(),
            lately: demand.lately.get(),
            held: demand.held.get(),
            span: u32::try_from(demand.span.as_millis()).unwrap_or(u32::MAX),
        };
        let demands = report.demands.iter().take(SHARES).map(one).collect();
        let cut = report.cut || report.demands.len() > SHARES;
        Self { number: report.number, applied: report.applied, scopes: scopes.list, demands, cut }
    }
}

impl From<Demands> for DemandReport {
    fn from(demands: Demands) -> Self {
        let Demands { number, applied, scopes, demands, cut } = demands;
        let cut = cut || demands.len() > SHARES;
        let reader = Reader::new(scopes);
        let demands = demands.into_iter().take(SHARES).filter_map(|one| {
            let [now, lately, held] = [one.now, one.lately, one.held].map(LimitPart::millionths);
            let span = Duration::from_millis(Some(one.span).filter(|span| *span <= LONGEST_SPAN)?.into());
            Some(Demand { key: reader.key(one.limit)?, now, lately, held, span })
        });
        Self { number, applied, demands: demands.collect(), cut }
    }
}

impl From<&ShareDeal> for Deal {
    fn from(deal: &ShareDeal) -> Self {
        let mut scopes = Scopes::default();
        let one = |(key, share): &(LimitKey, Option<LimitPart>)| OneShare {
            limit: Some(scopes.limit(key)),
            share: share.map(LimitPart::get),
        };
        let shares = deal.shares.iter().map(one).collect();
        Self { number: deal.number, heard: deal.heard, scopes: scopes.list, shares }
    }
}

/// A deal has limits that this release does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UnknownLimit;

impl TryFrom<Deal> for ShareDeal {
    type Error = UnknownLimit;

    /// A deal is taken as a whole, because it is confirmed as a whole.
    fn try_from(deal: Deal) -> Result<Self, UnknownLimit> {
        let Deal { number, heard, scopes, shares } = deal;
        let reader = Reader::new(scopes);
        let one = |one: OneShare| Some((reader.key(one.limit)?, one.share.map(LimitPart::millionths)));
        let count = shares.len();
        let shares: Vec<_> = shares.into_iter().take(SHARES).map_while(one).collect();
        if shares.len() == count { Ok(Self { number, heard, shares }) } else { Err(UnknownLimit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn key(scope: &str, last: u8, kind: LimitKind) -> LimitKey {
        let address: std::net::IpAddr = if last.is_multiple_of(2) {
            [10, 0, 0, last].into()
        } else {
            [0x2001, last.into(), 0, 0, 0, 0, 0, 1].into()
        };
        LimitKey { scope: scope.into(), client: address.into(), kind }
    }

    fn report() -> DemandReport {
        let kinds = [LimitKind::PerSecond, LimitKind::PerMinute, LimitKind::InProgress];
        let parts = [0, 7, 1_000_000].map(LimitPart::millionths);
        let demand = |at: u8, kind| Demand {
            key: key(if at < 2 { "shop/web" } else { "shop/api" }, at, kind),
            now: parts[at as usize],
            lately: parts[2 - at as usize],
            held: parts[1],
            span: Duration::from_millis(5010),
        };
        DemandReport {
            number: 3,
            applied: 2,
            demands: (0..).zip(kinds).map(|(at, kind)| demand(at, kind)).collect(),
            cut: true,
        }
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let said = Demands::from(&report());
        assert_eq!(said.scopes, ["shop/web", "shop/api"]);
        assert_eq!(DemandReport::from(Demands::decode(&said.encode_to_vec()[..]).unwrap()), report());
        let shares = report().demands.into_iter().map(|demand| (demand.key, Some(demand.now)));
        let deal = ShareDeal {
            number: 1,
            heard: 3,
            shares: shares.chain([(key("a/b", 9, LimitKind::PerSecond), None)]).collect(),
        };
        let said = Deal::from(&deal);
        assert_eq!(ShareDeal::try_from(Deal::decode(&said.encode_to_vec()[..]).unwrap()), Ok(deal));
    }

    #[test]
    fn of_a_report_only_what_is_understood_counts_and_of_a_deal_all_or_nothing() {
        let spoil: [fn(&mut OneLimit); 4] = [
            |limit| limit.kind = 4,
            |limit| limit.scope = 9,
            |limit| limit.client = Bytes::from_static(b"16 bytes of them"),
            |limit| limit.client = Bytes::new(),
        ];
        for spoil in spoil {
            let mut said = Demands::from(&report());
            spoil(said.demands[1].limit.as_mut().unwrap());
            let heard = DemandReport::from(said.clone());
            assert_eq!(heard.demands, [report().demands[0].clone(), report().demands[2].clone()]);
            let shares = said.demands.into_iter().map(|one| OneShare { limit: one.limit, share: Some(1) }).collect();
            let deal = Deal { number: 1, heard: 1, scopes: said.scopes, shares };
            assert_eq!(ShareDeal::try_from(deal), Err(UnknownLimit));
        }
    }

    #[test]
    fn what_a_proxy_claims_is_bounded() {
        let mut said = Demands::from(&report());
        let demand = said.demands[0].clone();
        said.demands = vec![OneDemand { now: u32::MAX, held: u32::MAX, span: LONGEST_SPAN, ..demand }; SHARES + 1];
        said.scopes[1] = "a".repeat(SCOPE + 1);
        let heard = DemandReport::from(said);
        assert_eq!(heard.demands.len(), SHARES);
        let one = &heard.demands[0];
        assert_eq!((one.now, one.held, one.span), (LimitPart::WHOLE, LimitPart::WHOLE, Duration::from_secs(600)));
        let mut long = Demands::from(&report());
        long.scopes[1] = "a".repeat(SCOPE + 1);
        assert_eq!(DemandReport::from(long.clone()).demands.len(), 2);
        long.demands[0].span = LONGEST_SPAN + 1;
        assert_eq!(DemandReport::from(long).demands.len(), 1);
    }
}
