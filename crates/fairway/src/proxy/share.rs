//! Reports to the controller the demand of clients that are close to a limit, and applies the shares that it assigns.

use std::sync::Arc;

use fairway_channel::{Dealt, ShareEnd};
use fairway_proxy::ClientLedger;
use fairway_proxy::limit::REPORT_PAUSE;
use tokio::time::{MissedTickBehavior, interval};

/// Ends with the link.
pub(super) async fn share(ledger: Arc<ClientLedger>, mut end: ShareEnd) {
    let mut connection = 0;
    let mut pause = interval(REPORT_PAUSE);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = async {
            ledger.watching().await;
            pause.tick().await
        };
        let confirms = tokio::select! {
            dealt = end.next() => match dealt {
                Some(Dealt::Shares(number, deal)) => {
                    connection = number;
                    if !ledger.deal(&deal, ledger.now()) {
                        continue;
                    }
                    true
                }
                Some(Dealt::Gone) => {
                    ledger.controller_gone(ledger.now());
                    continue;
                }
                None => return,
            },
            _ = due => false,
        };
        if let Some(report) = ledger.report(ledger.now(), confirms) {
            end.report(connection, report);
        }
    }
}
