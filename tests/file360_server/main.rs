//! Behaviour of the embedded File 360, over real HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::needless_pass_by_value, reason = "bodies are written where they are sent")]

#[path = "../support/counterparts.rs"]
mod counterparts;
mod driver;
mod support;

mod access;
mod audit;
mod browser;
mod client_state;
mod content;
mod contract;
mod documents;
mod durability;
mod feed;
mod fencing;
mod files;
mod folders;
mod gates;
mod governance;
mod idempotency;
mod listing;
mod members;
mod pages;
mod sharing;
mod tokens;
mod trees;
mod webdav;
mod workspaces;

#[tokio::test]
async fn every_driver_passes_the_suite_as_far_as_it_says_it_can() {
    use driver::Which;
    let all: Vec<_> = [content::BEHAVIOURS, listing::BEHAVIOURS, trees::BEHAVIOURS].concat();
    for which in Which::ALL {
        let subject = which.subject().await;
        let service = subject.driver.service().await.unwrap();
        let enforcement = subject.driver.enforcement(&service);
        let (mut runs, mut does_not) = (0, Vec::new());
        for (name, needs) in &all {
            match driver::missing(needs, &enforcement) {
                None => runs += 1,
                Some((feature, level)) => does_not.push(format!("{name}: {feature:?} is {level:?}")),
            }
        }
        println!("{which:?} runs {runs} of {} behaviours; not:", all.len());
        does_not.iter().for_each(|line| println!("  {line}"));
        let fewest = match which {
            Which::Connector => all.len(),
            Which::WebDav => 17,
        };
        assert!(runs >= fewest, "{which:?} runs {runs}: {does_not:?}");
    }
}
