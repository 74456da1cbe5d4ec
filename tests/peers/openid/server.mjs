// node server.mjs PORT CONFIG: a certified OpenID provider (npm oidc-provider) that also plays an EHR which launches
// SMART apps: /fhir/.well-known/smart-configuration, /fhir/Patient/{id} for the bearer of its token, and the launch
// context (patient, appContext) in the token response. It ends when its standard input closes.
// CONFIG is JSON: clients (as oidc-provider takes them), people (name → claims), patients (Patient resources), and
// launches (launch parameter → {patient, appContext}). Who logs in types a name; there are no passwords.
import '../node20.mjs';
import { Provider } from 'oidc-provider';

const [port, given] = process.argv.slice(2);
const config = JSON.parse(given);
const issuer = `http://localhost:${port}`;
const fhir = `${issuer}/fhir`;
const launches = new Map(); // grant → launch context

const provider = new Provider(issuer, {
  clients: config.clients,
  claims: { openid: ['sub'], profile: ['name'], fhirUser: ['fhirUser'], roles: ['roles'] },
  scopes: ['openid', 'profile', 'roles', 'fhirUser', 'launch', 'patient/*.read'],
  conformIdTokenClaims: false,
  extraParams: ['launch', 'aud'],
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['only for tests'] },
  findAccount: (_ctx, id) =>
    config.people[id] && { accountId: id, claims: async () => ({ sub: id, ...config.people[id] }) },
});

provider.use(async (ctx, next) => {
  const [, first, second, third] = ctx.path.split('/');
  if (first === 'interaction') return interact(ctx, second);
  if (first === 'fhir') return serveFhir(ctx, second, third);
  if (ctx.path === '/requests') return (ctx.body = seen);
  await next();
  if (ctx.oidc?.route === 'token' && ctx.status === 200) {
    Object.assign(ctx.body, launches.get(ctx.oidc.entities.Grant?.jti) ?? {}, config.answer ?? {});
  }
});

const seen = []; // authorization requests, so that a test can look at their parameters

async function interact(ctx, uid) {
  const details = await provider.interactionDetails(ctx.req, ctx.res);
  if (ctx.method === 'GET') {
    ctx.type = 'html';
    ctx.body = `<!doctype html><html lang="en"><title>Log in</title><form method="post" action="/interaction/${uid}">
      <label>Name <input name="who"></label> <button>Log in</button> <button name="deny" value="1">Cancel</button></form>`;
    return;
  }
  const form = new URLSearchParams(await text(ctx.req));
  const who = form.get('who');
  const { params } = details;
  seen.push(params);
  if (form.get('deny') || !config.people[who]) {
    return provider.interactionFinished(ctx.req, ctx.res, { error: 'access_denied' });
  }
  const context = params.launch === undefined ? undefined : config.launches[params.launch];
  if (params.launch !== undefined && (!context || params.aud !== fhir)) {
    return provider.interactionFinished(ctx.req, ctx.res, { error: 'invalid_request' });
  }
  const grant = new provider.Grant({ accountId: who, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const id = await grant.save();
  if (context) launches.set(id, context);
  await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: who }, consent: { grantId: id } });
}

async function serveFhir(ctx, kind, id) {
  if (kind === '.well-known' && id === 'smart-configuration') {
    ctx.body = {
      issuer,
      jwks_uri: `${issuer}/jwks`,
      authorization_endpoint: `${issuer}/auth`,
      token_endpoint: `${issuer}/token`,
      code_challenge_methods_supported: ['S256'],
      capabilities: ['launch-ehr', 'client-public', 'sso-openid-connect', 'context-ehr-patient', 'permission-patient'],
    };
    return;
  }
  const token = await provider.AccessToken.find((ctx.get('authorization') ?? '').replace(/^Bearer /, ''));
  const mayRead = token?.scope?.split(' ').includes('patient/*.read');
  const patient = kind === 'Patient' && config.patients.find((one) => one.id === id);
  const refused = !mayRead || launches.get(token.grantId)?.patient !== id ? 401 : patient ? 0 : 404;
  ctx.body = refused ? { resourceType: 'OperationOutcome' } : patient;
  ctx.status = refused || 200;
  ctx.type = 'application/fhir+json';
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

provider.listen(Number(port), '127.0.0.1');
process.stdin.on('end', () => process.exit(0)).resume();
process.on('SIGTERM', () => process.exit(0));
