// A program made ready to run: nodes in order, and where every number lies in an arena.
//
// Layouts. A batched value of shape (C, H, W) is stored position by position, [H][W][C]; every other value as its shape
// says. Weights of a layer that alone uses them are stored as its kernels want them (kernels.h); others as they are.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"
#include "program.h"
#include "team.h"

namespace adgan {

// Whole vectors, of sixteen floats: whatever lies in an arena or a row begins at one.
inline std::int64_t aligned(std::int64_t floats) { return (floats + 15) / 16 * 16; }

enum class Weights : int { per_seed, per_sample, frozen };

struct Timers;

// What a node works on: some samples (or one), and the weights of their owner.
struct Run {
  const Kernels* kernels;
  const float* fixed;    // constants, and what follows from them alone
  const float* theta;    // θ₀, in the layout of the state
  State state;           // parameters of the owner; `old` is what a forward or backward pass reads
  float* prepared;       // what follows from the parameters: packed copies, scales and shifts
  float* gradient;       // of parameters that no node updates itself; null: nothing is learned
  int samples;
  float* act;            // values, one sample's after another's
  float* grad;           // and their gradients
  std::int64_t act_stride, grad_stride;
  const Team* team;      // who may share the work
  int sample;            // where nodes are called for each sample: which of them
  float* scratch;        // of the first thread
  std::int64_t scratch_stride;  // to the next one's
  float *history, *change;  // of the rank-1 layers: inputs and output gradients; what their weights have moved by
  AdamStep adam;         // of the parameters
  int step;              // from 1; 0 before any
  // The latent's own state, for the node that moves it (Plan::moves_latent).
  AdamStep adam_latent;
  State latent;
  float* next_act;
  bool first_layer_done;
  bool keep_weights;     // the last step's, which no pass reads
  Timers* timers;  // or null

  // The same for one sample, as a thread of the team sees it.
  Run of_sample(int number, int thread) const {
    Run one = *this;
    one.samples = 1;
    one.sample = number;
    one.act += number * act_stride;
    one.grad += number * grad_stride;
    one.scratch += thread * scratch_stride;
    return one;
  }
};

// Seconds spent, by layer of the program (the last entry: everything that belongs to none), forward and backward.
struct Timers {
  std::vector<double> forward, backward;
  double updates = 0;  // prepare() and update()
};

class Node {
 public:
  virtual ~Node() = default;
  virtual bool takes_all_samples() const { return false; }  // else forward() and backward() are called for each
  virtual void prepare(Run&) const {}  // once the parameters are known
  virtual void forward(Run&) const = 0;
  virtual void backward(Run&) const = 0;
  virtual void finish(Run&) const {}  // once the gradients of all samples are there
  // Adds what the weights at this place in θ₀ have moved by, where the node keeps that alone.
  virtual void add_change(const Run&, std::int64_t /*place*/, float* /*weights*/) const {}
};

// The gradient of a parameter that is used as it is (a bias, a norm's, a learned constant), a sum over all samples: those of one number add to a part of their own, in
// Run::prepared, and at the end the parts are added in order. So threads and their number change no bit.
struct SampleSums {
  std::int64_t at = -1;  // of the parts; -1: not wanted
  std::int64_t size = 0, stride = 0;
  int parts = 0;
  std::int64_t gradient = 0;  // in Run::gradient

  bool wanted(const Run& run) const { return run.gradient && at >= 0; }
  void clear(Run& run) const;
  float* part(const Run& run, int sample) const { return run.prepared + at + sample * stride; }
  void add_up(Run& run) const;
};

struct Parameter {
  std::int64_t offset = 0;     // in θ₀; and in the owner's state, unless its layer keeps the change alone
  std::int64_t size = 0;       // there, padding included
  std::int64_t gradient = -1;  // in Run::gradient, or -1 where the node that uses it updates it
  class Packing* packing = nullptr;  // null: stored as it is
};

// A layout of weights.
class Packing {
 public:
  virtual ~Packing() = default;
  virtual std::int64_t packed_size() const = 0;
  virtual void pack(const float* natural, float* packed) const = 0;
  virtual void add_unpacked(const float* packed, float* natural) const = 0;
};

class Plan {
 public:
  // `compact`: what private weights move by, or their moments, in 16 bits (bfloat16) where it pays.
  // Throws std::invalid_argument where the program does not fit together.
  Plan(const Program& program, Weights weights, std::int64_t steps, bool compact);

  const Program program;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::size_t> layer_of;  // node by node; the number of layers for those of none
  std::vector<Parameter> parameters;
  std::int64_t latent_act, latent_grad, latent_size;
  std::vector<int> latent_place;  // of each number of a latent, where it is stored; empty: in its own order
  std::int64_t output_act, output_grad, output_size;
  int batch;  // samples that pass at a time, at most
  bool moves_latent = false;  // a node of backward() moves the latent and does the next first layer

  // Floats of each region: θ₀; of an owner's state, values and first moments, second moments; ...
  std::int64_t theta_size = 0, state_size = 0, second_size = 0, gradient_size = 0, fixed_size = 0, prepared_size = 0,
               act_size = 0, grad_size = 0, scratch_size = 0, history_size = 0, change_size = 0;

  // θ₀ in the state's layout, and the constants. Sizes must be as the program says.
  void load(const std::vector<const float*>& given, const std::vector<const float*>& constants, float* theta,
            float* fixed) const;

  void prepare(Run&) const;
  void forward(Run&) const;
  void backward(Run&) const;        // from the gradient of the output
  void update(Run&) const;          // Adam on what backward() left to it
  void write_weights(const Run&, const std::vector<float*>& to) const;  // the owner's, by parameter, as the module has them

 private:
  friend class Builder;
  std::vector<std::pair<std::int64_t, std::int64_t>> zeros_;       // of grad: shared by several consumers
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
