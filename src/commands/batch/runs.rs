//! `trueup batch runs` lists runs, `trueup batch cancel` cancels them.

use std::io::Write;

use problem::Code;
use reqwest::Method;
use shared::control::{Run, RunPage, RunState};

use crate::arguments::{BatchCancel, BatchRuns};
use crate::client::{Client, ClientError};
use crate::commands::listing::{dash, show, time_or_dash};
use crate::exit::{Failure, NO};
use crate::human_units::{bytes, grouped};
use crate::table::{Align, draw};

use super::{sentence, took, word};

pub async fn list(arguments: BatchRuns) -> Result<(), Failure> {
    let mut path = format!("/v1/runs?limit={}", arguments.limit);
    if let Some(view) = &arguments.view {
        path += &format!("&view={view}");
    }
    if let Some(state) = arguments.state {
        path += &format!("&state={}", word(state));
    }
    if let Some(before) = &arguments.before {
        path += &format!("&before={before}");
    }
    show(&arguments.listing, &path, |page: RunPage| table(&page, None)).await
}

fn table(page: &RunPage, width: Option<u16>) -> String {
    if page.runs.is_empty() {
        return "no matching runs\n".to_owned();
    }
    let header = [
        ("run", Align::Left),
        ("state", Align::Left),
        ("trigger", Align::Left),
        ("version", Align::Right),
        ("started", Align::Left),
        ("took", Align::Right),
        ("dates", Align::Right),
        ("rows", Align::Right),
        ("read", Align::Right),
        ("reason", Align::Left),
    ];
    let rows = page.runs.iter().map(|run| {
        vec![
            run.id.clone(),
            word(run.state).to_owned(),
            trigger(run),
            run.version.map_or_else(dash, |version| version.to_string()),
            time_or_dash(run.started_at),
            took(run),
            format!("{}/{}", run.progress.dates_done, run.progress.dates),
            grouped(run.progress.rows),
            bytes(run.progress.bytes_read),
            reason(run),
        ]
    });
    let mut text = draw(&header, rows, width);
    if let Some(next) = &page.next {
        text += &format!("older runs: --before {next}\n");
    }
    text
}

fn trigger(run: &Run) -> String {
    match run.attempt {
        0 | 1 => run.trigger.clone(),
        attempt => format!("{}, attempt {attempt}", run.trigger),
    }
}

fn reason(run: &Run) -> String {
    let error = run.error.clone().unwrap_or_default();
    match run.retry_at {
        Some(at) => format!("{error}; next attempt at {at}"),
        None => error,
    }
}

/// Cancels a run, or all running and queued runs of a view.
pub async fn cancel(arguments: BatchCancel) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let ids = match client.get::<Run>(&format!("/v1/runs/{}", arguments.run)).await {
        Ok(run) => vec![run.id],
        Err(ClientError::Refused(refusal))
            if refusal.problem.as_ref().is_some_and(|it| it.code() == Code::UnknownRun) =>
        {
            match client.get::<RunPage>(&format!("/v1/runs?view={}&limit=1000", arguments.run)).await {
                Ok(page) => page.runs.into_iter().filter(is_open).map(|run| run.id).collect(),
                Err(_) => return Err(ClientError::Refused(refusal).into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    if ids.is_empty() {
        return Err(Failure::new(NO, format!("no running or queued run of {}", arguments.run)));
    }
    for id in ids {
        let before: Run = client.get(&format!("/v1/runs/{id}")).await?;
        let run: Run = client.json(client.request(Method::DELETE, &format!("/v1/runs/{id}"))).await?;
        let outcome = match (before.state, before.retry_at) {
            (RunState::Queued | RunState::Running, _) => format!("run {id} of {} is being cancelled", run.view),
            (_, Some(_)) => format!("the retry of run {id} of {} is cancelled", run.view),
            _ => format!("{}; nothing to cancel", sentence(&run)),
        };
        writeln!(std::io::stdout(), "{outcome}")?;
    }
    Ok(())
}

fn is_open(run: &Run) -> bool {
    !run.state.is_over() || run.retry_at.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_run;
    use super::*;

    #[test]
    fn runs_are_printed_as_a_table() {
        let mut failed = a_run("failed", None, Some("disk full"));
        failed.attempt = 2;
        failed.trigger = "retry".to_owned();
        failed.retry_at = shared::time::Micros::parse("2024-01-01T00:01:00Z");
        let page = RunPage { runs: vec![a_run("published", Some(4), None), failed], next: Some("r7".to_owned()) };
        insta::assert_snapshot!(table(&page, Some(200)), @r#"
         run   state       trigger            version   started                 took   dates     rows   read   reason
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         r7    published   request                  4   2024-01-01T00:00:01Z   2.5 s     3/3   41,200    0 B
         r7    failed      retry, attempt 2         -   2024-01-01T00:00:01Z   2.5 s     3/3   41,200    0 B   disk full; next attempt at 2024-01-01T00:01:00Z
        older runs: --before r7
        "#);
    }
}
