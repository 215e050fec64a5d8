// A generator as data: adgan_fast/generator/program.py's Program, read from the flat lists that
// adgan_fast/engine/native/encode.py writes.
#pragma once

#include <cstdint>
#include <vector>

#include "core/layers.h"
#include "core/modes.h"

namespace adgan {

// Throws std::invalid_argument: a program that does not fit together.
void require(bool condition, const char* what);

using Shape = std::vector<std::int64_t>;

std::int64_t product(const Shape& shape, std::size_t first = 0);

struct Value {
  Kind kind;
  int index;    // of a parameter or constant
  Shape shape;  // of one sample where batched, else whole

  bool batched() const { return kind == Kind::latent || kind == Kind::activation; }
  std::int64_t size() const { return product(shape); }
};

struct Layer {
  Op op;
  int output;
  std::vector<int> inputs;  // value ids, -1 where absent
  std::vector<std::int64_t> whole;
  std::vector<double> real;
};

struct Program {
  std::vector<Value> values;
  std::vector<Layer> layers;
  int latent;
  int output;

  // Throws std::invalid_argument where the lists make no program.
  Program(const std::vector<std::int64_t>& code, const std::vector<double>& numbers);
};

}  // namespace adgan
