#include "core/nodes/node.h"

#include <algorithm>

namespace adgan {

void SampleSums::clear(Run& run) const {
  if (wanted(run)) std::fill_n(part(run, 0), stride * parts, 0.0f);
}

void SampleSums::add_up(Run& run) const {
  if (!wanted(run)) return;
  for (int i = 0; i < parts; ++i) run.kernels->add(part(run, i), run.gradient + gradient, size);
}

}  // namespace adgan
