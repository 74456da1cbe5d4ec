// node read_dcmjs.mjs SEGMENTATION SOURCE SEGMENT TARGET.npy: dcmjs' Cornerstone adapter, called as a viewer does.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const dcmjs = createRequire(import.meta.url)('dcmjs');
const [segmentation, source, segment, target] = process.argv.slice(2);

function bytes(path) {
  const { buffer, byteOffset, byteLength } = readFileSync(path);
  return buffer.slice(byteOffset, byteOffset + byteLength);
}

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
const image = DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(bytes(source)).dict);
const iop = image.ImageOrientationPatient ?? [1, 0, 0, 0, 1, 0]; // viewers assume this where an image has no plane
const modules = {
  instance: image,
  sopCommonModule: { sopInstanceUID: image.SOPInstanceUID, sopClassUID: image.SOPClassUID },
  generalSeriesModule: { seriesInstanceUID: image.SeriesInstanceUID, modality: image.Modality },
  imagePlaneModule: {
    rowCosines: iop.slice(0, 3),
    columnCosines: iop.slice(3),
    frameOfReferenceUID: image.FrameOfReferenceUID,
  },
  imagePixelModule: { rows: image.Rows, columns: image.Columns },
};
const state = dcmjs.adapters.Cornerstone.Segmentation.generateToolState(
  ['image:1'],
  bytes(segmentation),
  { get: (module) => modules[module] },
  false,
  1e-3
);
if (!state) {
  throw new Error('dcmjs: the segmentation does not lie in the plane of its source');
}
const labelMaps = state.labelmapBufferArray.map((buffer) => new Uint16Array(buffer)); // several where segments overlap
const mask = Uint8Array.from(labelMaps[0], (_, at) => Number(labelMaps.some((map) => map[at] === Number(segment))));
let header = `{'descr': '|b1', 'fortran_order': False, 'shape': (${image.Rows}, ${image.Columns}), }`;
header = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + '\n';
const prefix = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
writeFileSync(target, Buffer.concat([prefix, Buffer.from(header, 'latin1'), mask]));
