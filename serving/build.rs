//! Compresses plotly.js, which the `plotly` crate brings, so that the program does not carry the 4.5 MB of its text.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    // The library is the content of the first script tag.
    let tags = plotly::Plot::offline_js_sources();
    let (_, rest) = tags.split_once('>').ok_or("the plotly crate has no script tag")?;
    let (script, _) = rest.split_once("</script>").ok_or("the script tag of the plotly crate does not end")?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(script.as_bytes())?;
    let path = Path::new(&env::var("OUT_DIR")?).join("plotly.min.js.gz");
    fs::write(path, encoder.finish()?)?;
    Ok(())
}
