//! Warns about files with secrets that other users of the machine can read.

use std::path::{Path, PathBuf};

use tracing::warn;

/// Returns true if users other than the owner can read or change the file.
pub fn is_readable_by_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o066 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Warns about the settings file, if it has a secret itself, about the files that it takes secrets from, and about `keys`, the
/// file of the keys.
pub fn warn_of_readable(settings: Option<&Path>, keys: &Path) {
    let text = settings.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    if let Some(path) = settings.filter(|path| has_secret(&text) && is_readable_by_others(path)) {
        let file = path.display();
        warn!(%file, "other users of this machine can read the settings, which have a password or a token in a URL; chmod 600 the file, or use ${{NAME}} or \"file:PATH\"");
    }
    for path in referenced(&text).iter().map(PathBuf::as_path).chain([keys]).filter(|path| is_readable_by_others(path))
    {
        let file = path.display();
        warn!(%file, "other users of this machine can read or change a file with secrets; chmod 600 it");
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#'))
}

/// Returns true if a URL has a password, or parameters, as those with tokens do.
fn has_secret(text: &str) -> bool {
    lines(text).any(|line| {
        let urls = line.split('"').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("://"));
        urls.into_iter().any(|(_, rest)| {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            authority.split_once('@').is_some_and(|(user, _)| user.contains(':')) || rest.contains('?')
        })
    })
}

/// Returns the files that `"file:PATH"` names.
fn referenced(text: &str) -> Vec<PathBuf> {
    let quoted = lines(text).flat_map(|line| line.split("\"file:").skip(1));
    quoted.filter_map(|rest| rest.split_once('"')).map(|(path, _)| PathBuf::from(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_and_referenced_files_are_found() {
        for (text, found) in [
            ("data = \"s3://bucket/x\"\n", false),
            ("jwks = \"https://login.example/keys\"\n", false),
            ("jwks = \"https://user:word@login.example/keys\"\n", true),
            ("jwks = \"https://login.example/keys?token=t\"\n", true),
            ("# jwks = \"https://login.example/keys?token=t\"\n", false),
            ("data = \"/srv/a?b\"\n", false),
        ] {
            assert_eq!(has_secret(text), found, "{text}");
        }
        let text = "a = \"file:/run/a\"\n# b = \"file:/run/b\"\nc = [\"file:/run/c\", \"file:/run/d\"]\n";
        assert_eq!(referenced(text), ["/run/a", "/run/c", "/run/d"].map(PathBuf::from));
    }
}
