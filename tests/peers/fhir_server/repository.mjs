// A FHIR repository that is atomic and outlives a crash: one line of a journal file is one committed unit of work.
import '../node20.mjs';
import { existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import {
  OperationOutcomeError,
  badRequest,
  conflict,
  gone,
  notFound,
  parseSearchRequest,
  preconditionFailed,
} from '@medplum/core';
import { MemoryRepository } from '@medplum/fhir-router';

const CONDITIONAL = /^[A-Z][A-Za-z]+\?/;
const LITERAL = /^([A-Z][A-Za-z]+)\/([A-Za-z0-9.-]{1,64})(?:\/_history\/[A-Za-z0-9.-]{1,64})?$/;

/** Calls visit(holder) for every object inside value that has a string `reference`. */
export function eachReference(value, visit) {
  if (Array.isArray(value)) {
    value.forEach((item) => eachReference(item, visit));
  } else if (value && typeof value === 'object') {
    if (typeof value.reference === 'string') {
      visit(value);
    }
    Object.values(value).forEach((item) => eachReference(item, visit));
  }
}

export class JournalRepository extends MemoryRepository {
  #file;
  #undo = []; // how to take back each write of the open unit, newest last
  #lines = []; // what the open unit will append to the journal
  #resourceTypes;
  #checkReferences;

  constructor(path, { resourceTypes, checkReferences }) {
    super();
    this.#resourceTypes = resourceTypes;
    this.#checkReferences = checkReferences;
    const kept = existsSync(path) ? this.#replay(readFileSync(path, 'utf8')) : 0;
    this.#file = openSync(path, 'a');
    ftruncateSync(this.#file, kept); // drops the half line of a unit that never committed
  }

  #replay(text) {
    let kept = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', kept)) {
      for (const change of JSON.parse(text.slice(kept, end))) {
        this.#apply(change);
      }
      kept = end + 1;
    }
    return Buffer.byteLength(text.slice(0, kept));
  }

  #apply({ deleted, ...resource }) {
    const { resourceType, id } = deleted ?? resource;
    const current = mapOf(this.resources, resourceType);
    const versions = mapOf(this.history, resourceType);
    const before = current.get(id);
    versions.set(id, [...(versions.get(id) ?? []), deleted ? { deleted } : resource]);
    deleted ? current.delete(id) : current.set(id, resource);
    return () => {
      versions.get(id).pop();
      before ? current.set(id, before) : current.delete(id);
    };
  }

  #write(change) {
    this.#undo.push(this.#apply(change));
    this.#lines.push(change);
  }

  /** Runs one request as one unit: all its writes reach the disk, or none is left. Units never overlap. */
  async unit(work, failed) {
    this.#undo = [];
    this.#lines = [];
    try {
      const result = await work();
      if (failed(result)) {
        this.#rollback();
        return result;
      }
      this.#requireReferents();
      if (this.#lines.length) {
        writeSync(this.#file, JSON.stringify(this.#lines) + '\n');
        fsyncSync(this.#file);
      }
      return result;
    } catch (error) {
      this.#rollback();
      throw error;
    }
  }

  #rollback() {
    this.#undo.reverse().forEach((undo) => undo());
  }

  #requireReferents() {
    for (const resource of this.#lines.filter((change) => !change.deleted)) {
      eachReference(resource, ({ reference }) => {
        if (CONDITIONAL.test(reference)) {
          throw new OperationOutcomeError(badRequest(`Conditional reference outside a transaction: ${reference}`));
        }
        if (!this.#checkReferences) {
          return;
        }
        const [, type, id] = LITERAL.exec(reference) ?? [];
        if (reference.startsWith('urn:uuid:') || (type && !this.resources.get(type)?.has(id))) {
          throw new OperationOutcomeError(
            badRequest(`${resource.resourceType}/${resource.id} refers to ${reference}, which is not here`)
          );
        }
      });
    }
  }

  /** Replaces `Patient?identifier=…` by the one resource that matches, or fails (FHIR R4 transaction rules). */
  async resolveConditionalReferences(bundle) {
    const holders = [];
    eachReference(bundle, (holder) => CONDITIONAL.test(holder.reference) && holders.push(holder));
    for (const holder of holders) {
      const [type, query] = [holder.reference.split('?')[0], holder.reference.slice(holder.reference.indexOf('?') + 1)];
      const found = await this.searchResources(parseSearchRequest(`${type}?${query}`));
      if (found.length !== 1) {
        throw new OperationOutcomeError({
          ...preconditionFailed,
          issue: [
            {
              severity: 'error',
              code: 'processing',
              details: { text: `Conditional reference ${holder.reference} matched ${found.length} resources, not one` },
            },
          ],
        });
      }
      holder.reference = `${type}/${found[0].id}`;
    }
  }

  // The in-memory parent calls this for every create and update.
  createResourceSync(resource, _options, update = false) {
    if (!this.#resourceTypes.has(resource.resourceType)) {
      throw new OperationOutcomeError(badRequest(`No resource type ${resource.resourceType} in R4`));
    }
    const copy = JSON.parse(JSON.stringify(resource));
    const id = copy.id ?? this.generateId();
    const earlier = this.history.get(copy.resourceType)?.get(id)?.length ?? 0;
    if (!update && this.resources.get(copy.resourceType)?.has(id)) {
      throw new OperationOutcomeError(conflict('Assigned ID is already in use'));
    }
    const meta = { ...copy.meta, versionId: String(earlier + 1), lastUpdated: new Date().toISOString() };
    const stored = { ...copy, id, meta };
    this.#write(stored);
    return structuredClone(stored);
  }

  // A create never keeps a client's id (FHIR R4 3.1.0.8), unless the transaction gave it.
  async createResource(resource, options, update = false) {
    return this.createResourceSync(
      update || options?.assignedId ? resource : { ...resource, id: undefined },
      options,
      update
    );
  }

  async deleteResource(resourceType, id, options) {
    const existing = this.resources.get(resourceType)?.get(id);
    if (!existing) {
      throw new OperationOutcomeError(notFound);
    }
    if (options?.ifMatch && existing.meta.versionId !== options.ifMatch) {
      throw new OperationOutcomeError(preconditionFailed);
    }
    this.#write({ deleted: { resourceType, id, at: new Date().toISOString() } });
  }

  async readResource(resourceType, id) {
    const resource = this.resources.get(resourceType)?.get(id);
    if (!resource) {
      throw new OperationOutcomeError(this.history.get(resourceType)?.has(id) ? gone : notFound);
    }
    return structuredClone(resource);
  }

  async readHistory(resourceType, id) {
    const versions = this.history.get(resourceType)?.get(id);
    if (!versions?.length) {
      throw new OperationOutcomeError(notFound);
    }
    const entry = versions.map((version, index) => ({
      resource: version.deleted ? undefined : structuredClone(version),
      request: {
        method: version.deleted ? 'DELETE' : index ? 'PUT' : 'POST',
        url: index || version.deleted ? `${resourceType}/${id}` : resourceType,
      },
      response: { status: version.deleted ? '204' : index ? '200' : '201', etag: `W/"${index + 1}"` },
    }));
    return { resourceType: 'Bundle', type: 'history', total: entry.length, entry: entry.reverse() };
  }

  async readVersion(resourceType, id, versionId) {
    const versions = this.history.get(resourceType)?.get(id) ?? [];
    const found = versions.find((version) => version.meta?.versionId === versionId);
    if (!found) {
      throw new OperationOutcomeError(notFound);
    }
    return structuredClone(found);
  }

  forgetEverything() {
    ftruncateSync(this.#file, 0);
    this.clear();
  }
}

function mapOf(outer, key) {
  if (!outer.has(key)) {
    outer.set(key, new Map());
  }
  return outer.get(key);
}
