#include "core/nodes/rank1_node.h"

#include <algorithm>

namespace adgan {

namespace {

// What a rank-1 layer keeps of the steps of a search: inputs, output gradients by slot, and the column of each slot.
struct History {
  int inputs, outputs, steps;  // steps so far
  std::int64_t per_step, first_g;
  float *base, *out;
  int *slots, *column, *taken;

  History(const MapLayout& layout, float* at, int so_far)
      : inputs(layout.group_inputs), outputs(layout.group_outputs), steps(so_far),
        per_step(aligned(inputs) + aligned(outputs)), first_g(aligned(inputs)) {
    slots = reinterpret_cast<int*>(at);
    column = slots + 16;
    taken = column + aligned(outputs + 1);
    out = at + 16 + 2 * aligned(outputs + 1);
    base = out + aligned(outputs);
  }

  static std::int64_t size(const MapLayout& layout, std::int64_t steps) {
    const std::int64_t in = aligned(layout.group_inputs), wide = aligned(layout.group_outputs);
    return 16 + 2 * aligned(layout.group_outputs + 1) + wide + steps * (in + wide);
  }

  float* x(int step) const { return base + step * per_step; }
  float* g(int step) const { return x(step) + first_g; }

  // Keeps this step's input and output gradient; columns whose gradient is not zero for the first time get slots.
  int add(const float* input, const float* gradient, int known) const {
    if (known == 0) std::fill_n(taken, outputs, 0);
    int count = known;
    for (int n = 0; n < outputs; ++n) {
      const int is_new = (gradient[n] != 0.0f) & !taken[n];
      column[count] = n;
      taken[n] |= is_new;
      count += is_new;
    }
    *slots = count;
    std::copy_n(input, inputs, x(steps - 1));
    float* const now = g(steps - 1);
    for (int a = 0; a < count; ++a) now[a] = gradient[column[a]];
    std::fill(now + count, now + aligned(outputs), 0.0f);  // for slots to come
    return count;
  }

  void scatter(float* y) const {
    for (int a = 0; a < *slots; ++a) y[column[a]] += out[a];
  }
};

class Rank1Node : public Node {
 public:
  Rank1Node(const MapLayout* layout, const MapPlaces& at) : layout_(*layout), at_(at) {}

  void prepare(Run& run) const override { at_.bias_sums.clear(run); }

  void forward(Run& run) const override {
    const MapSpec& spec = layout_.spec;
    const MapShape& shape = layout_.pieces[0].shape;
    float* const y = run.act + at_.y;
    if (!(at_.moves_latent && run.first_layer_done)) {
      const float* const x = run.act + at_.x;
      std::fill_n(y, shape.outputs, 0.0f);
      run.kernels->rank1_forward(shape.inputs, shape.outputs, shape.ld, run.theta + at_.weights, x, y);
      if (run.step > 0) {
        const History history(layout_, run.history + at_.history, run.step);
        std::fill_n(history.out, shape.ld, 0.0f);
        run.kernels->rank1_forward(shape.inputs, *history.slots, shape.ld, run.change + at_.change, x, history.out);
        history.scatter(y);
      }
    }
    const float* const bias = at_.bias_of(run);
    if (!bias) return;
    for (int p = 0; p < spec.output_positions; ++p) run.kernels->add(bias, y + p * spec.outputs, spec.outputs);
  }

  void backward(Run& run) const override {
    const MapShape& shape = layout_.pieces[0].shape;
    const int inputs = shape.inputs, outputs = shape.outputs;
    const History history(layout_, run.history + at_.history, run.step);
    const float* const dy = run.grad + at_.dy;
    if (at_.bias_sums.wanted(run)) {
      run.kernels->sum_rows(dy, layout_.spec.output_positions, layout_.spec.outputs, at_.bias_sums.part(run, 0));
    }
    Rank1Update job{};
    job.ld = shape.ld;
    job.steps = run.step;
    job.old_slots = run.step == 1 ? 0 : *history.slots;
    job.slots = history.add(run.act + at_.x, dy, job.old_slots);
    job.adam = run.adam;
    job.compact = at_.compact;
    job.keep = run.keep_weights || !(at_.moves_latent && run.adam.last_step);
    for (int s = 0; s < run.step; ++s) job.g[s] = history.g(s);
    float* const dx = at_.dx < 0 ? nullptr : run.grad + at_.dx;
    float* const y = run.next_act + at_.y;
    if (at_.moves_latent) {
      job.out = history.out;
      std::fill_n(job.out, shape.ld, 0.0f);
      std::fill_n(y, outputs, 0.0f);
    }
    // Some rows at a time: their gradient, the latent's step, their part of the next forward pass, their own Adam step
    // and its part, while they are in cache.
    constexpr int kRows = 8;
    for (int row = 0; row < inputs; row += kRows) {
      const float* const theta = run.theta + at_.weights + static_cast<std::int64_t>(row) * shape.ld;
      job.rows = std::min(kRows, inputs - row);
      for (int s = 0; s < run.step; ++s) job.x[s] = history.x(s) + row;
      job.change = run.change + at_.change + static_cast<std::int64_t>(at_.compact ? row / 2 : row) * shape.ld;
      if (dx) {
        const float* const g = job.g[run.step - 1];
        run.kernels->rank1_backward(job.rows, outputs, shape.ld, theta, dy, dx + row, at_.add_dx);
        if (at_.compact) {
          run.kernels->rank1_backward_compact(job.rows, job.old_slots, shape.ld, job.change, g, dx + row);
        } else {
          run.kernels->rank1_backward(job.rows, job.old_slots, shape.ld, job.change, g, dx + row, true);
        }
      }
      if (at_.moves_latent) {
        run.kernels->adam(run.latent.at(row), dx + row, job.rows, run.adam_latent);
        job.next = run.latent.value + row;
        run.kernels->rank1_forward(job.rows, outputs, shape.ld, theta, job.next, y);
      }
      run.kernels->rank1_update(job);
    }
    if (at_.moves_latent) history.scatter(y);
  }

  void finish(Run& run) const override { at_.bias_sums.add_up(run); }

  void add_change(const Run& run, std::int64_t place, float* weights) const override {
    if (place != at_.weights) return;
    const MapShape& shape = layout_.pieces[0].shape;
    const History history(layout_, run.history + at_.history, run.step);
    for (int row = 0; row < shape.inputs; ++row) {
      const std::int64_t first = static_cast<std::int64_t>(row) * shape.ld;
      for (int a = 0; a < *history.slots; ++a) weights[first + history.column[a]] += run.change[at_.change + first + a];
    }
  }

 private:
  const MapLayout& layout_;
  const MapPlaces at_;
};

}  // namespace

std::int64_t rank1_history_size(const MapLayout& layout, std::int64_t steps) { return History::size(layout, steps); }

std::int64_t rank1_change_size(const MapLayout& layout, bool compact) {
  return static_cast<std::int64_t>(compact ? ceil_div(layout.group_inputs, 2) : layout.group_inputs) *
         layout.pieces[0].shape.ld;
}

std::unique_ptr<Node> make_rank1_node(const MapLayout* layout, const MapPlaces& places) {
  return std::make_unique<Rank1Node>(layout, places);
}

}  // namespace adgan
