// Feeds a bundle's graph with onnxruntime-web (WASM): prints the logits of a prompt's tokens and of one decode step.
// node web.mjs BUNDLE, in a folder where onnxruntime-web is installed.
import fs from 'node:fs';
import path from 'node:path';
import * as ort from 'onnxruntime-web';
const bundle = process.argv[2], manifest = JSON.parse(fs.readFileSync(path.join(bundle, 'manifest.json')));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = 'error';
const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(path.join(bundle, 'decoder.onnx'))), {
  executionProviders: ['wasm'],
  externalData: [{ path: 'decoder.onnx.data', data: new Uint8Array(fs.readFileSync(path.join(bundle, 'decoder.onnx.data'))) }],
});
const empty = (layer) => new ort.Tensor(
  'float32', new Float32Array(layer.kv_heads * 64 * layer.head_size), [1, layer.kv_heads, 64, layer.head_size]);
let cache = manifest.layers.map((layer) => ({ key: empty(layer), value: empty(layer) }));

async function step(ids, total, rows) {
  const feeds = {
    input_ids: new ort.Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]),
    total_lengths: new ort.Tensor('int32', Int32Array.from([total]), [1]),
    logit_rows: new ort.Tensor('int64', BigInt64Array.from(rows, BigInt), [rows.length]),
  };
  cache.forEach((layer, i) => ['key', 'value'].forEach((kind) => { feeds[`past_key_values.${i}.${kind}`] = layer[kind]; }));
  const out = await session.run(feeds);
  cache = cache.map((_, i) => ({ key: out[`present.${i}.key`], value: out[`present.${i}.value`] }));
  return Array.from(out.logits.data);
}

const ids = Array.from({ length: 20 }, (_, i) => i * 7 % manifest.vocabulary);
const first = await step(ids, 20, [...ids.keys()]);
const second = await step([3], 21, [0]);
console.log(JSON.stringify([first, second]));
