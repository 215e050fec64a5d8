// What a program's values are, and the modes of a search: numbered as in adgan_fast (tests/csrc/test_tables.py
// compares).
#pragma once

namespace adgan {

// X(name). A weight is computed from parameters by layers of the program.
#define ADGAN_VALUE_KINDS(X) X(latent) X(activation) X(parameter) X(constant) X(weight)

// Who owns a private copy of the weights: each (image, start), each image, nobody.
#define ADGAN_WEIGHTS(X) X(per_seed) X(per_sample) X(frozen)

// `function`: of the caller's.
#define ADGAN_LOSSES(X) X(l2) X(l1) X(laplacian) X(function)

// Each can run what the ones before it can. `baseline` is SSE2 on x86-64 and NEON on aarch64; `avx2` has FMA with it;
// `avx512` is F, DQ, BW and VL.
#define ADGAN_INSTRUCTION_SETS(X) X(baseline) X(avx2) X(avx512)

#define ADGAN_MODE(NAME) NAME,
#define ADGAN_COUNT(NAME) +1

enum class Kind : int { ADGAN_VALUE_KINDS(ADGAN_MODE) };
enum class Weights : int { ADGAN_WEIGHTS(ADGAN_MODE) };
enum class Loss : int { ADGAN_LOSSES(ADGAN_MODE) };
enum class Isa : int { ADGAN_INSTRUCTION_SETS(ADGAN_MODE) };

constexpr int kKinds = ADGAN_VALUE_KINDS(ADGAN_COUNT);
constexpr int kWeights = ADGAN_WEIGHTS(ADGAN_COUNT);
constexpr int kLosses = ADGAN_LOSSES(ADGAN_COUNT);

#undef ADGAN_MODE
#undef ADGAN_COUNT

}  // namespace adgan
