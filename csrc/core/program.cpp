#include "core/program.h"

#include <stdexcept>

namespace adgan {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

std::int64_t product(const Shape& shape, std::size_t first) {
  std::int64_t n = 1;
  for (std::size_t d = first; d < shape.size(); ++d) n *= shape[d];
  return n;
}

namespace {

template <typename T>
class Reader {
 public:
  explicit Reader(const std::vector<T>& items) : items_(items) {}
  T next() {
    require(at_ < items_.size(), "the program ends too soon");
    return items_[at_++];
  }
  T next(T least, T most) {
    const T item = next();
    require(least <= item && item <= most, "the program holds a number out of its range");
    return item;
  }
  T left() const { return static_cast<T>(items_.size() - at_); }
  bool done() const { return at_ == items_.size(); }

 private:
  const std::vector<T>& items_;
  std::size_t at_ = 0;
};

constexpr std::int64_t kMost = 1 << 28;  // of any size or count: keeps products of a few within 64 bits

}  // namespace

Program::Program(const std::vector<std::int64_t>& code, const std::vector<double>& numbers) {
  Reader<std::int64_t> in(code);
  Reader<double> reals(numbers);
  require(in.next() == fingerprint(), "the C++ extension was compiled from another list of layers: build it again");
  const std::int64_t n_values = in.next(1, kMost);
  for (std::int64_t v = 0; v < n_values; ++v) {
    Value value;
    value.kind = static_cast<Kind>(in.next(0, kKinds - 1));
    value.index = static_cast<int>(in.next(-1, kMost));
    value.shape.resize(static_cast<std::size_t>(in.next(0, 16)));
    for (auto& size : value.shape) size = in.next(1, kMost);
    require(value.size() <= kMost, "a value of the program is too large");
    values.push_back(value);
  }
  latent = static_cast<int>(in.next(0, n_values - 1));
  output = static_cast<int>(in.next(0, n_values - 1));
  require(values[latent].kind == Kind::latent && values[output].kind == Kind::activation &&
              values[output].shape.size() == 3,
          "the program's ends are not a latent and an image");
  const std::int64_t n_layers = in.next(0, kMost);
  for (std::int64_t l = 0; l < n_layers; ++l) {
    Layer layer;
    layer.op = static_cast<Op>(in.next(0, kOps - 1));
    layer.output = static_cast<int>(in.next(0, n_values - 1));
    layer.inputs.resize(static_cast<std::size_t>(in.next(0, 8)));
    for (auto& input : layer.inputs) input = static_cast<int>(in.next(-1, n_values - 1));
    layer.whole.resize(static_cast<std::size_t>(in.next(0, in.left())));
    for (auto& number : layer.whole) number = in.next(-1, kMost);
    layer.real.resize(static_cast<std::size_t>(in.next(0, 8)));
    for (auto& number : layer.real) number = reals.next();
    const LayerTraits expected = traits(layer.op);
    require(static_cast<int>(layer.inputs.size()) == expected.inputs && layer.inputs[0] >= 0 &&
                (expected.whole < 0 || static_cast<int>(layer.whole.size()) == expected.whole) &&
                static_cast<int>(layer.real.size()) == expected.real,
            "a layer of the program has the wrong inputs or attributes");
    layer.real.resize(kMostReal, 0.0);
    layers.push_back(layer);
  }
  require(in.done() && reals.done(), "the program goes on behind its end");
}

}  // namespace adgan
