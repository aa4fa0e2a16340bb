
// The credentials that a page sends with its requests, and the reason of a refused one.

let secret = null; // [name, value] of a header

async function reason(response) {
  const content = await response.text();
  try {
    return `${response.status}: ${JSON.parse(content).detail ?? response.statusText}`;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

function secretHeader() {
  return secret ? { [secret[0]]: secret[1] } : {};
}

/** Open the dialog; `changed` is called when it closes. */
function askForSecretAnd(changed) {
  const dialog = byId("page-secret");
  dialog.onclose = () => {
    const [name, value] = [byId("secret-name").value.trim(), byId("secret-value").value.trim()];
    secret = name && value ? [name, value] : null;
    byId("page-authorize").classList.toggle("given", Boolean(secret));
    changed();
  };
  if (!dialog.open) dialog.showModal();
}
