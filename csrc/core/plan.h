// A program made ready to run: nodes in order, and where every number lies in an arena.
//
// Layouts. A batched value is stored position by position, (C, H, W) as [H][W][C], or as its shape says (storage.h,
// plan_storage.cpp); parameters, constants and what is made of them alone always so. Weights of a layer that alone uses
// them are stored packed, as its kernels want them (kernels/kernels.h); others as they are.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "core/nodes/node.h"
#include "core/packing.h"
#include "core/program.h"
#include "core/sizes.h"

namespace adgan {

struct Parameter {
  std::int64_t offset = 0;           // in θ₀; and in the owner's state, unless its layer keeps the change alone
  std::int64_t size = 0;             // there, padding included
  std::int64_t gradient = -1;        // in Run::gradient, or -1 where the node that uses it updates it
  const Packing* packing = nullptr;  // null: stored as it is
};

constexpr int kBatch = 16;  // samples in hand at a time where they share weights

class ExecutionPlan {
 public:
  // `compact`: what private weights move by, or their moments, in 16 bits (bfloat16) where it pays.
  // Throws std::invalid_argument where the program does not fit together.
  ExecutionPlan(const Program& program, Weights weights, std::int64_t steps, bool compact);

  const Program program;
  std::vector<std::unique_ptr<Node>> nodes;
  // Of weights that are computed from parameters: once for an owner, in parts of Run::prepared and Run::gradient.
  std::vector<std::unique_ptr<Node>> owner_nodes;
  std::int64_t owner_act = 0, owner_grad = 0;  // where in these
  std::vector<std::size_t> layer_of;           // node by node; the number of layers for those of none
  std::vector<Parameter> parameters;
  std::int64_t latent_act, latent_grad, latent_size;
  std::vector<int> latent_place;  // of each number of a latent, where it is stored; empty: in its own order
  std::int64_t output_act, output_grad, output_size;
  int batch;                  // samples that pass at a time, at most
  bool moves_latent = false;  // a node of backward() moves the latent and does the next first layer

  // Floats of each region: θ₀; of an owner's state, values and moments m, moments v; ...
  std::int64_t theta_size = 0, state_size = 0, v_size = 0, gradient_size = 0, fixed_size = 0, prepared_size = 0,
               act_size = 0, grad_size = 0, scratch_size = 0, history_size = 0, change_size = 0;

  // θ₀ in the state's layout, and the constants. Sizes must be as the program says.
  void load(const std::vector<const float*>& given, const std::vector<const float*>& constants, float* theta,
            float* fixed) const;

  void prepare(Run&) const;
  void forward(Run&) const;
  void backward(Run&) const;  // from the gradient of the output
  void update(Run&) const;    // Adam on what backward() left to it
  void write_weights(const Run&,
                     const std::vector<float*>& to) const;  // the owner's, by parameter, as the module has them

 private:
  friend class Builder;
  Run of_owner(const Run&) const;                             // as owner_nodes see it
  std::vector<std::pair<std::int64_t, std::int64_t>> zeros_;  // of grad: shared by several consumers
  struct Fixed {
    std::int64_t offset;
    int constant;
    const Packing* packing;
    double eps;  // of a batch norm: 1 / √(variance + eps) is kept; negative: the constant itself
  };
  std::vector<Fixed> fixed_;
  std::vector<std::unique_ptr<Packing>> layouts_;
};

}  // namespace adgan
