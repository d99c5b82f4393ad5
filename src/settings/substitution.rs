//! Replaces `${NAME}` in a settings file by environment variables, and `"file:PATH"` by the content of files, so that
//! secrets need not be in it.

/// A shorter value is not a secret, and may be a part of another word.
const SECRET_BYTES_MIN: usize = 4;

/// A text without references.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Substituted {
    pub text: String,
    /// What replaced the references, unless it is too short for a secret.
    pub values: Vec<String>,
}

/// Replaces all references in `text`, outside comments. `variable` returns the value of an environment variable. Errors
/// have the number of the line, from 1.
pub fn substitute(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Substituted, (usize, String)> {
    let mut result = Substituted { text: String::with_capacity(text.len()), values: Vec::new() };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_start().starts_with('#') {
            result.text.push_str(line);
            continue;
        }
        let values = &mut result.values;
        let line = variables(line, &variable, values).and_then(|line| files(&line, values));
        result.text.push_str(&line.map_err(|message| (index + 1, message))?);
    }
    result.values.retain(|value| value.len() >= SECRET_BYTES_MIN);
    Ok(result)
}

fn variables(
    line: &str,
    variable: &impl Fn(&str) -> Option<String>,
    values: &mut Vec<String>,
) -> Result<String, String> {
    let mut parts = line.split("${");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').ok_or_else(|| "${ has no closing }".to_owned())?;
        let value = variable(name).ok_or_else(|| format!("the environment variable \"{name}\" is not set"))?;
        result.push_str(&escaped(&value));
        values.push(value);
        result.push_str(rest);
    }
    Ok(result)
}

fn files(line: &str, values: &mut Vec<String>) -> Result<String, String> {
    const START: &str = "\"file:";
    let Some((before, from)) = line.split_once(START) else { return Ok(line.to_owned()) };
    let (path, rest) = from.split_once('"').ok_or_else(|| "the path after file: has no closing quote".to_owned())?;
    let content = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let value = content.trim_end_matches(['\r', '\n']);
    values.push(value.to_owned());
    Ok(format!("{before}\"{}\"{}", escaped(value), files(rest, values)?))
}

/// Escapes a value for a quoted string of TOML.
fn escaped(value: &str) -> String {
    let mut result = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' | '\\' => result.extend(['\\', c]),
            c if c.is_control() => result.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        let values = [("DATA", "s3://bucket"), ("ODD", "a\"b\\c\nd"), ("N", "7")];
        values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn variables_and_files_are_replaced_and_cannot_end_their_string() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        std::fs::write(&file, "se\"cret\n").expect("written");
        let text = format!(
            "# ${{NOT}} looked at\na = \"${{DATA}}/x\"\nb = \"${{ODD}}\"\nn = ${{N}}\nc = [\"file:{0}\", \"file:{0}\"]\n",
            file.display()
        );
        let table: toml::Table = toml::from_str(&substitute(&text, known).expect("replaced").text).expect("TOML");
        assert_eq!(table["a"].as_str(), Some("s3://bucket/x"));
        assert_eq!(table["b"].as_str(), Some("a\"b\\c\nd"));
        assert_eq!(table["n"].as_integer(), Some(7));
        let secrets: Vec<_> = table["c"].as_array().expect("a list").iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(secrets, ["se\"cret", "se\"cret"]);
    }

    #[test]
    fn missing_variables_and_files_are_errors_with_a_line() {
        for (text, line, word) in [
            ("a = 1\nb = \"${MISSING}\"\n", 2, "MISSING"),
            ("a = \"${DATA\"\n", 1, "no closing"),
            ("\n\na = \"file:no-such-file\"\n", 3, "no-such-file"),
        ] {
            let (at, message) = substitute(text, known).expect_err(text);
            assert!(at == line && message.contains(word), "{at}: {message}");
        }
    }
}
