//! `trueup erase`: erases an entity. `trueup erasures`: lists erasures.

use std::io::Write;

use reqwest::{Method, Url};
use shared::control::{ErasureRecord, ErasureState};

use crate::arguments::{Erase, Listing};
use crate::client::Client;
use crate::exit::Failure;
use crate::table::{Align, draw};

use super::listing::{Entries, dash, show};

const HEADER: [(&str, Align); 8] = [
    ("stream", Align::Left),
    ("entity", Align::Left),
    ("state", Align::Left),
    ("events", Align::Right),
    ("erased", Align::Left),
    ("by", Align::Left),
    ("reference", Align::Left),
    ("waits for", Align::Left),
];

pub async fn run(arguments: Erase) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/entities/{}/{}", arguments.stream, encoded(&arguments.id));
    let query = arguments.reference.as_ref().map(|reference| [("reference", reference)]);
    let request = client.request(Method::DELETE, &path);
    let request = query.iter().fold(request, |request, query| request.query(query));
    let erased: ErasureRecord = client.json(request).await?;
    writeln!(std::io::stdout(), "{}", sentence(&erased))?;
    Ok(())
}

pub async fn list(listing: Listing) -> Result<(), Failure> {
    show(&listing, "/v1/erasures", |Entries(erasures)| table(&erasures, None)).await
}

/// The id as a segment of a path.
fn encoded(id: &str) -> String {
    let mut url = Url::parse("http://host").expect("a URL");
    url.path_segments_mut().expect("a URL with a path").push(id);
    url.path().trim_start_matches('/').to_owned()
}

fn sentence(erased: &ErasureRecord) -> String {
    let ErasureRecord { stream, entity, events, .. } = erased;
    match erased.state {
        ErasureState::Complete => format!("{stream}: erased {events} events ({entity}); no file has them"),
        ErasureState::Pending => format!(
            "{stream}: erased {events} events ({entity}): nothing of the entity can be read; files follow, see trueup erasures"
        ),
    }
}

fn table(erasures: &[ErasureRecord], width: Option<u16>) -> String {
    let rows = erasures.iter().map(|erased| {
        vec![
            erased.stream.to_string(),
            erased.entity.clone(),
            format!("{:?}", erased.state).to_lowercase(),
            erased.events.to_string(),
            erased.erased_at.to_string(),
            erased.by.clone(),
            erased.reference.clone().unwrap_or_else(dash),
            erased.waits_for.clone().unwrap_or_else(dash),
        ]
    });
    draw(&HEADER, rows, width)
}

#[cfg(test)]
mod tests {
    use shared::time::Micros;

    use super::*;

    #[test]
    fn an_erasure_is_printed_without_the_id_and_ids_fit_into_paths() {
        let erased = ErasureRecord {
            stream: "order_events".parse().expect("a name"),
            entity: "0af0".to_owned(),
            state: ErasureState::Pending,
            erased_at: Micros(0),
            by: "key 12".to_owned(),
            reference: Some("ticket-7".to_owned()),
            events: 3,
            completed_at: None,
            waits_for: Some("its turn".to_owned()),
        };
        assert!(sentence(&erased).starts_with("order_events: erased 3 events (0af0): nothing"));
        let drawn = table(&[erased], Some(160));
        assert!(drawn.contains("pending") && drawn.contains("ticket-7") && drawn.contains("its turn"), "{drawn}");
        assert_eq!((encoded("a/b c?"), encoded("é")), ("a%2Fb%20c%3F".to_owned(), "%C3%A9".to_owned()));
    }
}
