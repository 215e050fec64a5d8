// The operator adgan_fast::adam_step_ on the CPU (contract in adgan_fast/ops/adam.py): checks, the split into blocks,
// registration. The maths is in core/. Everything goes through torch's stable ABI, so one binary serves every torch
// from 2.11 on.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "core/adam.h"

namespace {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;

#define ADAM_CHECK(condition, ...) STD_TORCH_CHECK(condition, "adgan_fast::adam_step_: ", __VA_ARGS__)

// Elements a thread takes at a time: seven streams of 32 KB (float32) stay in the second-level cache, and a block
// costs a hundred times what handing it out does.
constexpr std::int64_t kBlock = 8192;
// Blocks below which another thread costs more than it brings (torch's own grain is 32,768 elements).
constexpr std::int64_t kGrain = 4;

std::string shape_text(IntHeaderOnlyArrayRef sizes) {
  std::ostringstream text;
  text << '[';
  for (std::size_t d = 0; d < sizes.size(); ++d) text << (d ? ", " : "") << sizes[d];
  text << ']';
  return text.str();
}

void check_count(const Tensors& params, std::size_t count, const char* name) {
  ADAM_CHECK(count == params.size(), "params has ", params.size(), " entries but ", name, " has ", count);
}

void check_like(const Tensor& t, const char* name, std::size_t k, ScalarType dtype) {
  ADAM_CHECK(t.is_cpu(), name, "[", k, "] must be on cpu as the other entries");
  ADAM_CHECK(t.scalar_type() == dtype, name, "[", k, "] must have its parameter's dtype ",
             torch::headeronly::toString(dtype), ", got ", torch::headeronly::toString(t.scalar_type()));
  ADAM_CHECK(t.layout() == torch::headeronly::Layout::Strided && t.is_contiguous(), name, "[", k,
             "] must be contiguous");
}

void check_shape(const Tensor& t, const char* name, std::size_t k, IntHeaderOnlyArrayRef expected) {
  const IntHeaderOnlyArrayRef sizes = t.sizes();
  ADAM_CHECK(sizes.size() == expected.size() && std::equal(sizes.begin(), sizes.end(), expected.begin()), name, "[", k,
             "] must have shape ", shape_text(expected), ", got ", shape_text(sizes));
}

void check_adam_step(const Tensors& params, const Tensors& exp_avgs, const Tensors& exp_avg_sqs, const Tensors& grads,
                     const Tensors& initial, const std::vector<double>& lrs, const adgan::AdamSettings& settings) {
  ADAM_CHECK(settings.step >= 1, "step must be 1 or more, got ", settings.step);
  ADAM_CHECK(settings.beta1 >= 0 && settings.beta1 < 1 && settings.beta2 >= 0 && settings.beta2 < 1,
             "betas must lie in [0, 1), got ", settings.beta1, " and ", settings.beta2);
  ADAM_CHECK(settings.eps >= 0, "eps must not be negative, got ", settings.eps);
  ADAM_CHECK(initial.empty() || settings.step == 1, "initial is read at step 1 only; pass an empty list at step ",
             settings.step);
  check_count(params, exp_avgs.size(), "exp_avgs");
  check_count(params, exp_avg_sqs.size(), "exp_avg_sqs");
  check_count(params, grads.size(), "grads");
  check_count(params, lrs.size(), "lrs");
  if (!initial.empty()) check_count(params, initial.size(), "initial");
  for (std::size_t k = 0; k < params.size(); ++k) {
    const Tensor& p = params[k];
    const ScalarType dtype = p.scalar_type();
    ADAM_CHECK((dtype == ScalarType::Float || dtype == ScalarType::Double) && dtype == params[0].scalar_type(),
               "params[", k, "] must be float32 or float64, the same for every entry, got ",
               torch::headeronly::toString(dtype));
    ADAM_CHECK(p.dim() >= 1, "params[", k, "] needs a first dimension of pairs, got a tensor without dimensions");
    check_like(p, "params", k, dtype);
    const struct {
      const char* name;
      const Tensor& tensor;
    } same_shape[] = {{"exp_avgs", exp_avgs[k]}, {"exp_avg_sqs", exp_avg_sqs[k]}, {"grads", grads[k]}};
    for (const auto& [name, tensor] : same_shape) {
      check_like(tensor, name, k, dtype);
      check_shape(tensor, name, k, p.sizes());
    }
    if (!initial.empty()) {
      const IntHeaderOnlyArrayRef sizes = p.sizes();
      const bool shared = initial[k].dim() != p.dim();
      check_like(initial[k], "initial", k, dtype);
      check_shape(initial[k], "initial", k, shared ? IntHeaderOnlyArrayRef(sizes.data() + 1, sizes.size() - 1) : sizes);
    }
  }
}

template <typename T>
void run_adam_step(const Tensors& params, const Tensors& exp_avgs, const Tensors& exp_avg_sqs, const Tensors& grads,
                   const Tensors& initial, const std::vector<double>& lrs, const adgan::AdamSettings& settings) {
  struct Block {
    std::size_t entry;
    std::int64_t begin;
    std::int64_t end;
  };
  std::vector<adgan::AdamEntry<T>> entries;
  std::vector<Block> blocks;
  entries.reserve(params.size());
  for (std::size_t k = 0; k < params.size(); ++k) {
    const std::int64_t numel = params[k].numel();
    T* const param = params[k].template mutable_data_ptr<T>();
    entries.push_back({param, exp_avgs[k].template mutable_data_ptr<T>(), exp_avg_sqs[k].template mutable_data_ptr<T>(),
                       grads[k].template const_data_ptr<T>(),
                       initial.empty() ? param : initial[k].template const_data_ptr<T>(),
                       initial.empty() ? numel : initial[k].numel(), numel, lrs[k]});
    for (std::int64_t begin = 0; begin < numel; begin += kBlock) {
      blocks.push_back({k, begin, std::min(begin + kBlock, numel)});
    }
  }
  torch::stable::parallel_for(0, static_cast<std::int64_t>(blocks.size()), kGrain,
                              [&](std::int64_t first, std::int64_t last) {
                                for (std::int64_t b = first; b < last; ++b) {
                                  adgan::adam_step(entries[blocks[b].entry], settings, blocks[b].begin, blocks[b].end);
                                }
                              });
}

void adam_step_(Tensors params, Tensors exp_avgs, Tensors exp_avg_sqs, Tensors grads, Tensors initial,
                std::vector<double> lrs, double beta1, double beta2, double eps, std::int64_t step, bool last) {
  const adgan::AdamSettings settings{beta1, beta2, eps, step, last};
  check_adam_step(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, settings);
  if (params.empty()) return;
  const auto run = params[0].scalar_type() == ScalarType::Float ? run_adam_step<float> : run_adam_step<double>;
  run(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, settings);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adgan_fast, CPU, m) { m.impl("adam_step_", TORCH_BOX(&adam_step_)); }
