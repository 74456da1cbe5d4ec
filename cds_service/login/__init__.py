"""How people come in: an OpenID provider, a SMART launch from the EHR, or an API token typed into a form."""
