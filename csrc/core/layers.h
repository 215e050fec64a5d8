// The layers of a program, numbered as adgan_fast numbers them: tests/csrc/test_tables.py reads the lists and compares.
//
// No switch over these enums has a `default:`, so that the compiler (-Wswitch) names each place that must know a new
// layer.
#pragma once

#include <cstdint>

namespace adgan {

// X(family, name, inputs, whole numbers, real numbers): what a layer brings. Inputs that may be absent count; -1: any
// number.

// Linear maps with weights of their own: x, weight, bias.
#define ADGAN_MAPS(X)                                                              \
  X(map, linear, 3, 1, 0)           /* whether the weight is stored transposed */  \
  X(map, conv2d, 3, 7, 0)           /* stride, padding, dilation (h, w); groups */ \
  X(map, conv_transpose2d, 3, 7, 0) /* the same; the output's shape says the output padding */

// By channel: x, and what each channel has.
#define ADGAN_NORMS(X)                                                         \
  X(norm, batch_norm, 5, 0, 1) /* weight, bias, running mean, variance; eps */ \
  X(norm, prelu, 2, 0, 0)      /* slope */

// Elementwise, of one value.
#define ADGAN_ACTIVATIONS(X)                                       \
  X(activation, relu, 1, 0, 0)                                     \
  X(activation, leaky_relu, 1, 0, 1) /* slope */                   \
  X(activation, tanh, 1, 0, 0)                                     \
  X(activation, sigmoid, 1, 0, 0)                                  \
  X(activation, elu, 1, 0, 3)      /* alpha, scale, input scale */ \
  X(activation, softplus, 1, 0, 2) /* beta, threshold */           \
  X(activation, silu, 1, 0, 0)                                     \
  X(activation, gelu, 1, 0, 0)                                     \
  X(activation, gelu_tanh, 1, 0, 0)                                \
  X(activation, erf, 1, 0, 0)                                      \
  X(activation, hardtanh, 1, 0, 2) /* low, high */                 \
  X(activation, clamp, 1, 0, 2)    /* low, high */                 \
  X(activation, pow, 1, 0, 1)      /* exponent */                  \
  X(activation, exp, 1, 0, 0)                                      \
  X(activation, log, 1, 0, 0)                                      \
  X(activation, abs, 1, 0, 0)                                      \
  X(activation, sin, 1, 0, 0)                                      \
  X(activation, scale_shift, 1, 0, 2) /* scale, shift */

// Elementwise, of two values that broadcast.
#define ADGAN_ARITHMETIC(X)                            \
  X(arithmetic, add, 2, 0, 1) /* alpha: a + alpha b */ \
  X(arithmetic, mul, 2, 0, 0)                          \
  X(arithmetic, div, 2, 0, 0)                          \
  X(arithmetic, maximum, 2, 0, 1) /* of two alike, the share of the gradient that a has */

// Of two values, neither of which need be a weight.
#define ADGAN_PRODUCTS(X) X(product, matmul, 2, 0, 0)

// By sums over some dimensions.
#define ADGAN_REDUCTIONS(X)                                 \
  X(reduction, standardize, 1, -1, 1) /* dimensions; eps */ \
  X(reduction, softmax, 1, 1, 0)      /* dimension */       \
  X(reduction, sum, 1, -1, 0)         /* dimensions */

// By constant matrices, whose rows are zero but for a few columns that lie together: x, rows, columns.
#define ADGAN_BANDED(X) X(banded, resample, 3, 0, 0)

// Every element of the output is one of the input, or a number.
#define ADGAN_GATHERS(X)                                               \
  X(gather, reshape, 1, 0, 0)                                          \
  X(gather, expand, 1, 0, 0)                                           \
  X(gather, take, 1, -1, 0)            /* dimension, then the index */ \
  X(gather, pad, 1, -1, 1)             /* before and after; value */   \
  X(gather, permute, 1, -1, 0)         /* dimensions */                \
  X(gather, upsample_nearest, 1, 2, 0) /* factor (h, w) */             \
  X(gather, pixel_shuffle, 1, 1, 0)    /* factor */                    \
  X(gather, stop, 1, 0, 0)             /* no gradient passes */

// Several values side by side.
#define ADGAN_JOINS(X) X(join, cat, 2, 1, 0) /* dimension */

#define ADGAN_LAYERS(X) \
  ADGAN_MAPS(X)         \
  ADGAN_NORMS(X)        \
  ADGAN_ACTIVATIONS(X)  \
  ADGAN_ARITHMETIC(X) ADGAN_PRODUCTS(X) ADGAN_REDUCTIONS(X) ADGAN_BANDED(X) ADGAN_GATHERS(X) ADGAN_JOINS(X)

#define ADGAN_NAME(FAMILY, NAME, ...) NAME,
#define ADGAN_NUMBERED(FAMILY, NAME, ...) NAME = static_cast<int>(Op::NAME),
#define ADGAN_ONE(...) +1
#define ADGAN_TRAITS(FAMILY, NAME, INPUTS, WHOLE, REAL) \
  case Op::NAME: return {Family::FAMILY, INPUTS, WHOLE, REAL};

enum class Op : int { ADGAN_LAYERS(ADGAN_NAME) };
constexpr int kOps = ADGAN_LAYERS(ADGAN_ONE);

enum class Family { map, norm, activation, arithmetic, product, reduction, banded, gather, join };

// The layers of a family alone, with their numbers in Op.
enum class MapOp : int { ADGAN_MAPS(ADGAN_NUMBERED) };
enum class NormOp : int { ADGAN_NORMS(ADGAN_NUMBERED) };
enum class ActivationOp : int { ADGAN_ACTIVATIONS(ADGAN_NUMBERED) };
enum class ArithmeticOp : int { ADGAN_ARITHMETIC(ADGAN_NUMBERED) };
enum class ProductOp : int { ADGAN_PRODUCTS(ADGAN_NUMBERED) };
enum class ReductionOp : int { ADGAN_REDUCTIONS(ADGAN_NUMBERED) };
enum class BandedOp : int { ADGAN_BANDED(ADGAN_NUMBERED) };
enum class GatherOp : int { ADGAN_GATHERS(ADGAN_NUMBERED) };
enum class JoinOp : int { ADGAN_JOINS(ADGAN_NUMBERED) };

struct LayerTraits {
  Family family;
  int inputs, whole, real;
};

constexpr LayerTraits traits(Op op) {
  switch (op) { ADGAN_LAYERS(ADGAN_TRAITS) }
  __builtin_unreachable();
}

// Of the whole list (64-bit FNV-1a, of which 62 bits): Python and C++ pass layers by number, and must mean the same.
#define ADGAN_TEXT(FAMILY, NAME, INPUTS, WHOLE, REAL) #NAME " " #INPUTS " " #WHOLE " " #REAL ";"
constexpr std::int64_t fingerprint() {
  std::uint64_t hash = 14695981039346656037u;
  for (const char* c = ADGAN_LAYERS(ADGAN_TEXT); *c; ++c)
    hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  return static_cast<std::int64_t>(hash >> 2);
}

constexpr int kMostReal = 3;  // numbers of a layer
#define ADGAN_FITS(FAMILY, NAME, INPUTS, WHOLE, REAL) &&REAL <= kMostReal
static_assert(true ADGAN_LAYERS(ADGAN_FITS), "a layer has more real numbers than a Layer keeps");

#undef ADGAN_NAME
#undef ADGAN_NUMBERED
#undef ADGAN_ONE
#undef ADGAN_TRAITS
#undef ADGAN_TEXT
#undef ADGAN_FITS

}  // namespace adgan
